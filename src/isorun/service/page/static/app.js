// What a click does. Everything that is shown was rendered by the service, or comes over the one stream of live.js.
// What is not needed for the first look is loaded when it is.

import { all, ask, h, one, tell, warn } from "./dom.js";
import { compose } from "./compose.js";
import { adding, busy, follow, picks, shown, stop } from "./live.js";

const { body } = document;
const talk = () => body.dataset.conversation;
const root = document.documentElement;
const WIDE = matchMedia("(min-width: 1180px)");
const copying = () => import("./copy.js");
const files = () => import("./files.js");

/** Send *text*. Whether the service took it. */
export const say = (text, files = []) =>
  tried(async () => {
    await ask("POST", `/v1/conversations/${await conversation(text)}/messages`, { text, ...(files.length && { files }) });
  });

/** Start a program in this conversation. Whether the service took it. */
export const start = (what) => tried(() => begun(what));

async function begun(what) {
  const inside = "conversation" in body.dataset;
  const run = await ask("POST", inside ? `/c/${await conversation(what.prog_name ?? what.code.trim().split("\n")[0].replace(/^([rRuU]?("""|''')|#)\s*|("""|''')$/g, "").slice(0, 60), true)}/runs` : "/v1/runs", what);
  if (!inside) location.assign(`/runs/${run.id}`);
}

export const busyStop = () => tried(() => ask("POST", `/v1/conversations/${talk()}/stop`));

async function tried(act) {
  try {
    await act();
    return true;
  } catch (error) {
    warn(error.message);
    return false;
  }
}

let making = null;

/** The conversation of this tab; the first message or program begins it. */
function conversation(title, named = false) {
  if (talk()) return Promise.resolve(talk());
  making ??= begin(title, named).finally(() => (making = null));
  return making;
}

async function begin(title, named) {
  const { id } = await ask("POST", "/v1/conversations", named ? { title } : {});
  body.dataset.conversation = id;
  follow(`/v1/conversations/${id}/events`);
  history.pushState({}, "", `/c/${id}`);
  const scenario = one(`.scenarios [data-say="${CSS.escape(title)}"]`);
  one("#talks .none")?.remove();
  const called = scenario ? picks(scenario) : title || "New conversation";
  const bin = h("button", { className: "bin", type: "button", "data-remove": id, ariaLabel: `Delete ${called}` }, "×");
  one("#talks").prepend(h("li", {}, h("a", { href: `/c/${id}`, ariaCurrent: "page" }, called), bin));
  return id;
}

const ACTS = {
  stop: (card, button) => {
    button.disabled = true;
    void tried(() => ask("POST", `/v1/runs/${card.dataset.run}/cancel`)).then((done) => (button.disabled = done));
  },
  again: (card) =>
    tried(async () => {
      const run = await ask("GET", `/v1/runs/${card.dataset.run}`);
      await (run.scenario === null || run.scenario === undefined || !("conversation" in body.dataset) ? (await copying()).repeat(run, begun) : say(String(run.scenario)));
    }),
  ...Object.fromEntries(
    ["curl", "python", "code"].map((form) => [
      form,
      (card, button) =>
        void tried(async () => (await copying()).copyRun(card.dataset.run, form)).then((done) => {
          if (!done) return;
          const text = button.textContent;
          button.textContent = "Copied";
          setTimeout(() => (button.textContent = text), 1500);
        }),
    ]),
  ),
};

/** A second click does nothing until the service has taken the first. */
async function once(button, taking) {
  button.disabled = true;
  await taking;
  button.disabled = false;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button, a.file");
  const card = button?.closest(".card");
  if (!button) return;
  if (button.matches("a.file") && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    void files().then(({ showFiles }) => showFiles(card, button));
  } else if (card && ACTS[button.dataset.act]) ACTS[button.dataset.act](card, button);
  else if (button.dataset.say !== undefined) {
    side(false);
    if ("conversation" in body.dataset) void once(button, say(button.dataset.say));
    else {
      sessionStorage.setItem("say", button.dataset.say);
      location.assign("/");
    }
  } else if (button.dataset.start) void once(button, tried(async () => (await import("./starter.js")).starter(button.dataset.start, begun)));
  else if (button.dataset.remove) void import("./remove.js").then(({ removeTalk }) => removeTalk(button));
});

function side(open) {
  body.classList.toggle("side-open", open);
  one("#menu")?.setAttribute("aria-expanded", String(open));
}

one("#menu")?.addEventListener("click", () => side(!body.classList.contains("side-open")));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (body.classList.contains("side-open")) side(false);
  else if (!one("#files")?.hidden && !one("dialog[open]")) void files().then(({ hideFiles }) => hideFiles());
});
one("#walls-open")?.addEventListener("click", () => one("#walls").showModal());
one("#theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  tell(`${root.dataset.theme} theme`);
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {
    // It holds for this page only.
  }
});
addEventListener("popstate", () => location.reload());
addEventListener("pagehide", stop);
addEventListener("pageshow", (event) => event.persisted && location.reload());

/** Where there is room, show the files of *card* by themselves, but not in place of one that was chosen meanwhile. */
async function offer(card) {
  if (!WIDE.matches || !one("a.file", card)) return;
  const { showFiles } = await files();
  const panel = one("#files");
  if (panel.hidden || panel.dataset.run !== card.dataset.run) adding(() => showFiles(card, null, { focus: false }));
}

document.addEventListener("run-ended", (event) => void offer(event.detail));

compose();
shown(document);
if (body.classList.contains("busy")) busy(true);
if (talk()) follow(`/v1/conversations/${talk()}/events`, Number(body.dataset.after));
else if (body.dataset.stream) follow(`/v1/runs/${body.dataset.stream}/events`);
const scroll = one("#scroll");
if (scroll) scroll.scrollTop = location.pathname.startsWith("/c/") ? scroll.scrollHeight : 0;
const latest = all(".card").findLast((card) => one("a.file", card));
if (latest) void offer(latest);

// A scenario that was chosen on a page without a conversation. No address can ask for it, so no other page can.
const chosen = sessionStorage.getItem("say");
if (chosen !== null && body.dataset.conversation === "") {
  sessionStorage.removeItem("say");
  void say(chosen);
}

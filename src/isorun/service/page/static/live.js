// One stream of events for the whole tab, and what each event does to the cards.
//
// A card is rendered by the service. Here only what comes while a program runs is added; at its end the card is fetched
// again, so that what is seen now is what is seen after a reload.

import { all, ask, h, one, tell, visible } from "./dom.js";

const ENDED = "outcome";
const KINDS = [
  ..."queued waiting started output tool_call_started tool_call frozen thawed skipped outcome artifact".split(" "),
  ..."message text turn_started turn_ended followups error run_started approval".split(" "),
];
const OPEN = ["queued", "running"];
const REPORT = /^status: [a-z_]+\nrun: /;
const loading = new Map(); // runs whose card is on its way, and what happened to them meanwhile
const gone = new Set(); // runs that have no card: they were removed
let source = null;
let path = "";
let last = 0;
const rendered = new Map(); // how much of each turn and role the service has put on the page

const log = () => one("#log");
const cardOf = (run) => document.getElementById(`run-${run}`);
const isOpen = (card) => OPEN.includes(card.dataset.status);

/** Follow the events of *address* behind number *after*. Those of what goes on are told again, so some are known. */
export function follow(address, after = 0) {
  stop();
  [path, last] = [address, after];
  for (const said of log().querySelectorAll("[data-turn]")) count(said.dataset.turn, said.classList.contains("mine"), 1);
  connect();
}

function count(turn, mine, by) {
  const key = `${turn} ${mine}`;
  const was = rendered.get(key) ?? 0;
  rendered.set(key, was + by);
  return was;
}

/** Hear nothing any more. */
export function stop() {
  source?.close();
  source = null;
}

function connect() {
  if (!path || source || document.hidden) return;
  const mine = new EventSource(`${path}?after=${last}`);
  source = mine;
  for (const kind of KINDS) mine.addEventListener(kind, hear);
  mine.addEventListener("error", () => {
    if (mine.readyState !== EventSource.CLOSED || source !== mine) return;
    source = null;
    const was = path; // the service is away for now, or what this tells of was deleted
    void import("./remove.js").then(({ isGone }) => isGone(was)).then((gone) => path === was && (gone ? (path = "") : setTimeout(connect, 3000)), () => setTimeout(connect, 3000));
  });
}

// A browser opens six connections to one host: a tab that nobody looks at gives its own back.
document.addEventListener("visibilitychange", () => (document.hidden ? stop() : connect()));

function hear(event) {
  if (event.data === undefined) return; // the connection's own `error`
  const news = JSON.parse(event.data);
  last = Math.max(last, news.seq);
  const run = news.run ?? (news.kind === "run_started" || news.kind === "error" ? news.data.run?.id ?? news.data.id ?? news.data.exec_id ?? news.data.run : null);
  if (typeof run === "string" && (news.kind !== "error" || cardOf(run) || loading.has(run))) ofRun(run, news);
  else if (news.kind !== "message" && news.kind !== "error") TALK[news.kind]?.(news.data);
  else if (count(news.turn, news.data.role === "user", -1) <= 0) TALK[news.kind](news.data);
  else one(".said.flowing")?.remove();
}

function ofRun(run, news) {
  const card = cardOf(run);
  if (loading.has(run)) loading.get(run).push(news);
  else if (card) apply(card, news);
  else if (!gone.has(run)) void load(run, news);
}

async function load(run, first) {
  const waiting = [first];
  loading.set(run, waiting);
  const place = h("article", { className: "card", ariaBusy: "true" }, h("p", { className: "note" }, "Starting…"));
  adding(() => log().append(place));
  one("#first")?.replaceWith(h("h1", { className: "unseen" }, "Conversation"));
  suggest();
  try {
    const card = await fetched(run);
    adding(() => place.replaceWith(card));
    shown(card);
    for (const news of waiting) apply(card, news);
  } catch (error) {
    place.remove();
    gone.add(run);
    if (error.status !== 404) log().append(h("p", { className: "banner", role: "alert" }, error.message));
  } finally {
    loading.delete(run);
  }
}

async function fetched(run) {
  const text = await ask("GET", `/runs/${encodeURIComponent(run)}?part=card`);
  return one("article", new DOMParser().parseFromString(text, "text/html"));
}

function apply(card, news) {
  if (news.kind === "error") banner(card, news.data.message);
  else if (isOpen(card)) CARD[news.kind]?.(card, news.data);
}

const CARD = {
  waiting: (card, data) => sentence(card, data.reason ?? "It waits for your other run."),
  started(card) {
    card.dataset.status = "running";
    for (const word of card.querySelectorAll(".word, .verdict strong")) word.textContent = "running";
    sentence(card, "It runs. What it prints appears here as it comes.");
  },
  output(card, data) {
    const out = one(".live", card);
    const below = out.scrollHeight - out.scrollTop - out.clientHeight < 40;
    const text = visible(data.text);
    const tail = out.lastChild;
    adding(() => {
      if (tail?.className === data.stream) tail.firstChild.appendData(text);
      else out.append(h("span", { className: data.stream }, document.createTextNode(text)));
      if (below) out.scrollTop = out.scrollHeight;
    });
  },
  skipped: (card, data) => one(".live", card).append(h("span", { className: "note" }, `\n[${data.bytes ?? data.events} more, in the log]\n`)),
  tool_call_started: (card, data) => call(card, { ...data, status: "running" }),
  tool_call: (card, data) => call(card, data),
  frozen: (card) => sentence(card, "It is frozen: a tool call waits for an answer."),
  thawed: (card) => sentence(card, "It runs."),
  outcome: (card, data) => void end(card, data),
};

function sentence(card, text) {
  const place = one(".verdict p", card);
  place.replaceChildren(one("strong", place), ` ${text}`);
}

function call(card, data) {
  const section = one(".calls", card);
  section.hidden = false;
  const list = one("ol", section);
  const id = `${card.dataset.run}-${data.call_id}`;
  const tone = data.status === "ok" ? "good" : data.status === "running" ? "live" : "bad";
  const json = (name, value) => (value === undefined || value === null ? [] : [h("h4", {}, name), h("pre", { tabIndex: 0 }, visible(typeof value === "string" ? value : JSON.stringify(value, null, 2)))]);
  const took = data.ms === undefined || data.ms === null ? "" : `${Math.round(data.ms)} ms`;
  const summary = h("summary", {}, h("b", {}, visible(String(data.tool_id))), " ", h("span", { className: "mini", "data-tone": tone }, data.status), " ", h("small", {}, took));
  if (data.reason) summary.append(h("span", { className: "why" }, visible(data.reason)));
  const item = h("li", { "data-tone": tone, "data-call": id }, h("details", {}, summary, ...json("Parameters", data.params), ...json("Result", data.result)));
  const old = [...list.children].find((one) => one.dataset.call === id);
  adding(() => (old ? old.replaceWith(item) : list.append(item)));
}

function banner(card, text) {
  const place = one(".banners", card);
  if ([...place.children].some((old) => old.textContent.startsWith(text))) return;
  place.append(h("p", { className: "banner", role: "alert" }, visible(text)));
}

async function end(card, data) {
  if (path.startsWith("/v1/runs/")) {
    path = "";
    stop(); // its stream is over, and a browser would ask for it again and again
  }
  card.dataset.status = data.status;
  for (const word of card.querySelectorAll(".word, .verdict strong")) word.textContent = data.status;
  one("[data-act=stop]", card).hidden = true;
  try {
    const fresh = await fetched(card.dataset.run);
    for (const old of card.querySelectorAll(".banner")) banner(fresh, old.textContent);
    one(".program", fresh).open = one(".program", card).open;
    adding(() => card.replaceWith(fresh));
    shown(fresh);
    tell(`${one("h2", fresh).textContent}: ${one(".verdict", fresh).textContent.trim()}`);
    document.dispatchEvent(new CustomEvent("run-ended", { detail: fresh }));
  } catch (error) {
    sentence(card, data.error?.message ?? error.message);
  }
}

/** What the service rendered, with colours and with its Markdown as elements. */
export function shown(root) {
  for (const errors of all(".out.stderr", root)) errors.scrollTop = errors.scrollHeight; // where the reason stands
  const codes = all(".code code", root);
  if (codes.length) void import("./colour.js").then(({ colour }) => codes.forEach((code) => colour(code.firstChild)));
  const texts = all(".theirs .text:not(.done)", root);
  for (const text of texts) text.classList.add("done", "plain");
  const change = ({ markdown }) => texts.forEach((text) => (text.replaceChildren(markdown(text.textContent)), text.classList.remove("plain")));
  if (texts.length) void import("./markdown.js").then((made) => adding(() => change(made)));
}

const TALK = {
  message(data) {
    one("#first")?.replaceWith(h("h1", { className: "unseen" }, "Conversation"));
    const mine = data.role === "user";
    if (!mine) one(".said.flowing")?.remove();
    const text = visible(data.text ?? "");
    let said;
    if (!mine && REPORT.test(text)) {
      said = h("details", { className: "said theirs report" }, h("summary", {}, "Execution report"), h("pre", { tabIndex: 0 }, text));
    } else {
      const names = (data.files ?? []).map((file) => visible(file.name)).join(", ");
      said = h("div", { className: `said ${mine ? "mine" : "theirs"}` }, h("span", { className: "unseen" }, mine ? "You: " : "isorun: "), h("div", { className: "text" }, text));
      if (names) said.append(h("small", {}, `with ${names}`));
    }
    adding(() => log().append(said));
    shown(said);
  },
  text(data) {
    one("#first")?.replaceWith(h("h1", { className: "unseen" }, "Conversation"));
    let flowing = one(".said.flowing");
    if (!flowing) {
      flowing = h("div", { className: "said theirs flowing", ariaBusy: "true" }, h("div", { className: "text done" }, document.createTextNode("")));
      adding(() => log().append(flowing));
    }
    adding(() => one(".text", flowing).firstChild.appendData(visible(data.delta ?? "")));
  },
  turn_started: () => busy(true),
  turn_ended(data) {
    busy(false);
    one(".said.flowing")?.classList.remove("flowing");
    if (data.status !== "ended") tell(`The turn ${data.status}`);
  },
  followups(data) {
    const next = one("#next");
    if (!next || !data.items?.length) return;
    const chips = data.items.map((item) => (typeof item === "string" ? { text: item, title: item } : { text: item.text ?? item.title, title: item.title ?? item.text }));
    one("ul", next).replaceChildren(...chips.map((item) => h("li", {}, h("button", { type: "button", "data-say": item.text }, visible(item.title)))));
    const many = Number(document.body.dataset.scenarios);
    one("summary", next).textContent = chips.length === many ? `What to try next: all ${many} scenarios` : "What to try next";
    next.hidden = false;
    next.open = chips.length < 7;
  },
  error: (data) => adding(() => log().append(h("p", { className: "banner", role: "alert" }, visible([data.message ?? "Something failed.", data.hint].filter(Boolean).join(" "))))),
};

/** What picks the scenario of a button. */
export const picks = (button) => `${button.dataset.say}. ${button.lastChild.textContent}`;

/** All scenarios, until somebody suggests something better. */
function suggest() {
  const next = one("#next");
  if (!next?.hidden) return;
  const items = all(".scenarios button").map(picks);
  if (!one("li", next)) TALK.followups({ items });
  next.hidden = !items.length;
}

/** Whether a turn goes on. */
export function busy(is) {
  document.body.classList.toggle("busy", is);
  document.dispatchEvent(new CustomEvent("busy", { detail: is }));
}

/** Do what makes the page longer; who was at its end stays there. */
export function adding(act) {
  const scroll = one("#scroll");
  const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 120;
  act();
  if (atEnd) scroll.scrollTop = scroll.scrollHeight;
}

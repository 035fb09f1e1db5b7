// The files of one run beside its card: a list, and a look into each.

import { all, ask, h, one, visible } from "./dom.js";
import { markdown } from "./markdown.js";

const MOST = 256 << 10; // bytes of a text that are asked for
const ROWS = 300; // of a table
let opener = null;

/** Show the files of *card*, and the one that *link* names; null: the first that can be looked at. */
export function showFiles(card, link = null, { focus = true } = {}) {
  const links = all(".files a.file", card);
  const chosen = link ?? links.find((found) => found.dataset.kind !== "none") ?? links[0];
  if (!chosen) return;
  opener = link;
  const panel = one("#files");
  const close = h("button", { className: "round", type: "button", ariaLabel: "Close the files", onclick: hideFiles }, "×");
  const look = h("div", { className: "look" });
  const tabs = links.map((found) => {
    const name = one("b", found).textContent;
    const tab = h("button", { type: "button", title: found.title }, name);
    tab.setAttribute("aria-pressed", found === chosen);
    tab.onclick = () => {
      for (const other of tabs) other.setAttribute("aria-pressed", other === tab);
      void preview(look, found);
    };
    return h("li", {}, tab);
  });
  for (const [number, item] of tabs.entries()) tabs[number] = item.firstChild;
  panel.replaceChildren(h("header", {}, h("h2", {}, "Files"), h("small", {}, one("h2", card).textContent), close), h("ul", {}, ...tabs.map((tab) => tab.parentNode)), look);
  panel.dataset.run = card.dataset.run;
  panel.hidden = false;
  document.body.classList.add("with-files");
  if (focus) panel.focus();
  void preview(look, chosen);
}

export function hideFiles() {
  one("#files").hidden = true;
  document.body.classList.remove("with-files");
  opener?.focus();
}

async function preview(look, link) {
  const { kind } = link.dataset;
  const url = link.getAttribute("href");
  const name = one("b", link).textContent;
  const get = h("a", { className: "act", href: `${url}?download=1`, download: "" }, "Download");
  const about = h("p", { className: "about" }, h("b", {}, name), h("small", {}, one("small", link).textContent), get);
  look.replaceChildren(about);
  const place = h("div", { className: "view" });
  look.append(place);
  try {
    await (VIEWS[kind] ?? VIEWS.text)(place, url, name);
  } catch (error) {
    place.replaceChildren(h("p", { className: "note" }, `${name} cannot be shown: ${error.message}`));
  }
}

const frame = (url, name, sandboxed) => {
  const made = h("iframe", { title: name });
  if (sandboxed) made.setAttribute("sandbox", "");
  made.src = url;
  return made;
};

const VIEWS = {
  picture: (place, url, name) => place.append(h("a", { href: url, target: "_blank" }, h("img", { src: url, alt: name }))),
  // What a program wrote may hold scripts: the frame has no rights, and the service says so again in its answer.
  frame: (place, url, name) => place.append(frame(url, name, true)),
  // Chromium shows no PDF in a frame without rights. Its viewer is a process of its own.
  pdf: (place, url, name) => place.append(frame(url, name, false)),
  none: (place) => place.append(h("p", { className: "note" }, "There is no preview of this kind. Download it.")),
  csv: async (place, url) => table(place, await text(place, url), ","),
  tsv: async (place, url) => table(place, await text(place, url), "\t"),
  async markdown(place, url) {
    const beside = new URL(url, location.href);
    const picture = (address) => {
      const found = new URL(address, beside);
      const folder = beside.pathname.replace(/[^/]*$/, "");
      return found.origin === location.origin && found.pathname.startsWith(folder) ? found.href : null;
    };
    place.append(h("div", { className: "text" }, markdown(visible(await text(place, url)), picture)));
  },
  async json(place, url) {
    const found = await text(place, url);
    let pretty = found;
    try {
      pretty = JSON.stringify(JSON.parse(found), null, 2);
    } catch {
      // Cut off, or no JSON: it is shown as it is.
    }
    place.append(h("pre", { tabIndex: 0 }, visible(pretty)));
  },
  text: async (place, url) => place.append(h("pre", { tabIndex: 0 }, visible(await text(place, url)))),
};

/** The beginning of a file, and a word if there is more. */
async function text(place, url) {
  const answer = await fetch(url, { headers: { range: `bytes=0-${MOST - 1}` } });
  if (answer.status === 416) return "";
  if (!answer.ok) await ask("GET", url); // raises, with the reason
  const whole = Number(answer.headers.get("content-range")?.split("/")[1] ?? 0);
  if (whole > MOST) place.append(h("p", { className: "note" }, `The first ${MOST >> 10} KiB of ${whole.toLocaleString("en")} bytes.`));
  return new TextDecoder().decode(await answer.arrayBuffer());
}

function table(place, found, between) {
  const rows = parse(found, between, ROWS + 1);
  const row = (cells, tag) => h("tr", {}, ...cells.slice(0, 60).map((cell) => h(tag, {}, visible(cell.slice(0, 500)))));
  const [head = [], ...body] = rows;
  place.append(h("div", { className: "wide", tabIndex: 0 }, h("table", {}, h("thead", {}, row(head, "th")), h("tbody", {}, ...body.map((cells) => row(cells, "td"))))));
  if (rows.length > ROWS) place.append(h("p", { className: "note" }, `The first ${ROWS} rows.`));
}

/** The rows of a table whose cells may be quoted. */
function parse(found, between, most) {
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  for (let at = 0; at < found.length && rows.length < most; at += 1) {
    const char = found[at];
    if (quoted) {
      if (char !== '"') cell += char;
      else if (found[at + 1] === '"') cell += found[(at += 1)];
      else quoted = false;
    } else if (char === '"' && !cell) quoted = true;
    else if (char === between) row.push(cell), (cell = "");
    else if (char === "\n") rows.push([...row, cell.replace(/\r$/, "")]), (row = []), (cell = "");
    else cell += char;
  }
  if (cell || row.length) rows.push([...row, cell]);
  return rows;
}

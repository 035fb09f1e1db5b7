// Markdown as elements: headings, lists, tables, code, quotes, links, pictures. HTML in it stays text.
//
// Links lead to http, https and mailto only. Pictures are shown where `picture` gives an address for them.

import { h } from "./dom.js";

const MOST = 200_000; // characters
const DEEPEST = 6; // quotes and lists in each other
const FENCE = /^ {0,3}(```+|~~~+)\s*([\w+-]*)/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const CELLS = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const INLINE =
  /(?<escape>\\[!-/:-@[-`{-~])|(?<code>(`+)(?!`)(?<body>[^`]{1,5000}?)\3(?!`))|(?<image>!\[(?<alt>[^\]]{0,500})\]\((?<from>[^)\s]{1,2000})[^)]{0,500}\))|(?<link>\[(?<words>[^\]]{1,500})\]\((?<to>[^)\s]{1,2000})[^)]{0,500}\))|(?<auto>https?:\/\/[^\s<>()"']{1,2000})|(?<strong>\*\*(?<bold>[^*\n]{1,2000})\*\*)|(?<em>(?<![\w*])[*_](?<slant>[^*_\n]{1,2000})[*_](?![\w*]))|(?<strike>~~(?<gone>[^~\n]{1,2000})~~)/gu;

/** The elements of *text*. `picture(address)` gives where a picture is, or null for one that is not shown. */
export function markdown(text, picture = () => null) {
  const made = document.createDocumentFragment();
  made.append(...blocks(text.slice(0, MOST).replaceAll("\r\n", "\n").split("\n"), picture, 0));
  return made;
}

function blocks(lines, picture, depth) {
  const made = [];
  let at = 0;
  const take = (test) => {
    const from = at;
    while (at < lines.length && test(lines[at], at)) at += 1;
    return lines.slice(from, at);
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = FENCE.exec(line);
    const head = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/.exec(line);
    if (!line.trim()) at += 1;
    else if (fence) {
      at += 1;
      const body = take((next) => !next.trim().startsWith(fence[1]));
      at += 1;
      made.push(h("pre", { tabIndex: 0 }, h("code", {}, body.join("\n"))));
    } else if (head) {
      at += 1;
      made.push(h(`h${Math.min(6, head[1].length + 2)}`, {}, ...inline(head[2], picture)));
    } else if (RULE.test(line)) {
      at += 1;
      made.push(h("hr"));
    } else if (/^ {0,3}>/.test(line) && depth < DEEPEST) {
      const body = take((next) => /^ {0,3}>/.test(next)).map((next) => next.replace(/^ {0,3}> ?/, ""));
      made.push(h("blockquote", {}, ...blocks(body, picture, depth + 1)));
    } else if (ITEM.test(line) && depth < DEEPEST) {
      made.push(list(take((next) => ITEM.test(next) || /^\s+\S/.test(next)), picture, depth));
    } else if (line.includes("|") && CELLS.test(lines[at + 1] ?? "") && lines[at + 1].includes("-")) {
      made.push(table(take((next) => next.includes("|")), picture));
    } else {
      const first = at;
      const body = take((next, number) => number === first || (next.trim() && !FENCE.test(next) && !/^ {0,3}(#{1,6}\s|>)/.test(next) && !ITEM.test(next)));
      made.push(h("p", {}, ...inline(body.join("\n"), picture)));
    }
  }
  return made;
}

function list(lines, picture, depth) {
  const [, indent, mark] = ITEM.exec(lines[0]);
  const made = h(/\d/.test(mark) ? "ol" : "ul");
  if (/\d/.test(mark)) made.start = parseInt(mark, 10);
  let body = [];
  const close = () => body.length && made.append(entry(body, picture, depth));
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (found && found[1].length <= indent.length) {
      close();
      body = [found[3]];
    } else body.push(line.slice(Math.min(indent.length + 2, line.length - line.trimStart().length)));
  }
  close();
  return made;
}

function entry(lines, picture, depth) {
  const task = /^\[([ xX])\]\s+/.exec(lines[0]);
  if (task) lines[0] = `${task[1] === " " ? "☐" : "☑"} ${lines[0].slice(task[0].length)}`;
  const inner = blocks(lines, picture, depth + 1);
  if (inner[0]?.tagName === "P") inner.splice(0, 1, ...inner[0].childNodes);
  return h("li", {}, ...inner);
}

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));

function table(lines, picture) {
  const row = (line, tag) => h("tr", {}, ...cells(line).map((cell) => h(tag, {}, ...inline(cell, picture))));
  const body = lines.slice(2, 502).map((line) => row(line, "td"));
  return h("div", { className: "wide", tabIndex: 0 }, h("table", {}, h("thead", {}, row(lines[0], "th")), h("tbody", {}, ...body)));
}

function inline(text, picture) {
  const made = [];
  let at = 0;
  for (const found of text.matchAll(INLINE)) {
    if (found.index > at) made.push(text.slice(at, found.index));
    made.push(element(found.groups, found[0], picture));
    at = found.index + found[0].length;
  }
  if (at < text.length) made.push(text.slice(at));
  return made;
}

function element(found, whole, picture) {
  if (found.escape) return whole.slice(1);
  if (found.code) return h("code", {}, found.body.trim() || found.body);
  if (found.image) return image(found, whole, picture);
  if (found.link) return link(found.to, inline(found.words, picture), whole);
  if (found.auto) return link(whole, [whole], whole);
  if (found.strong) return h("strong", {}, ...inline(found.bold, picture));
  if (found.em) return h("em", {}, ...inline(found.slant, picture));
  return h("s", {}, found.gone);
}

function image(found, whole, picture) {
  const address = picture(found.from);
  return address ? h("img", { src: address, alt: found.alt, loading: "lazy" }) : whole;
}

function link(to, words, whole) {
  return /^(https?:\/\/|mailto:)/i.test(to) ? h("a", { href: to, rel: "noopener noreferrer nofollow", target: "_blank" }, ...words) : whole;
}

// The editor of the Code tab: its keys, the files that a program promises, and the tools that it may call.

import { all, ask, h, one } from "./dom.js";

const form = one("#composer");
const code = one("#code");

/** Make the editor work, once. */
export function edited() {
  if (form.dataset.edited) return;
  form.dataset.edited = "yes";
  code.addEventListener("keydown", edit);
  one("[data-act=promise]", form).onclick = promise;
  one("#tools").addEventListener("toggle", (event) => void tools(event.target));
  if (one("#tools").open) void tools(one("#tools"));
}

/** The body of POST /v1/runs for *program*, with what was chosen beside it. */
export function asked(program) {
  const made = { code: program, timeout_s: Number(one("#timeout").value) || 30 };
  const contract = promised();
  if (contract.length) made.contract = contract;
  if (one("#tools").dataset.chosen) made.tools = chosen();
  return made;
}

let leaves = false;

function edit(event) {
  if (event.key === "Escape") {
    leaves = true;
    return;
  }
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.preventDefault(), form.requestSubmit();
  else if (event.key === "Tab" && !leaves && !event.ctrlKey && !event.altKey) event.preventDefault(), indent(event.shiftKey);
  else if (event.key === "Enter" && !event.isComposing) {
    const line = code.value.slice(0, code.selectionStart).split("\n").pop();
    const blanks = /^\s*/.exec(line)[0] + (/:\s*(#.*)?$/.test(line) ? "    " : "");
    if (blanks) event.preventDefault(), insert(`\n${blanks}`);
  }
  if (event.key !== "Shift") leaves = false;
}

/** As if it were typed, so that undo works. */
function insert(what) {
  if (!document.execCommand("insertText", false, what)) code.setRangeText(what, code.selectionStart, code.selectionEnd, "end");
}

function indent(back) {
  const { value, selectionStart: from, selectionEnd: to } = code;
  if (!back && from === to) return insert(" ".repeat(4 - ((from - value.lastIndexOf("\n", from - 1) - 1) % 4)));
  const first = value.lastIndexOf("\n", from - 1) + 1;
  const lines = value.slice(first, to).split("\n");
  const moved = lines.map((line) => (back ? line.replace(/^ {1,4}|^\t/, "") : line && `    ${line}`)).join("\n");
  code.setSelectionRange(first, to);
  insert(moved);
  code.setSelectionRange(from === to ? Math.max(first, from - (lines[0].length - moved.length)) : first, from === to ? Math.max(first, from - (lines[0].length - moved.length)) : first + moved.length);
}

function promise() {
  const row = h("div", { className: "row" });
  const field = (label, name, hint) => h("label", {}, h("span", {}, label), h("input", { name, placeholder: hint }));
  row.append(field("File", "filename", "report.md"), field("What it holds", "description", "the report"), field("Must contain", "must_contain", ""));
  row.append(h("button", { className: "round", type: "button", ariaLabel: "Promise it no more", onclick: () => (row.remove(), count()) }, "×"));
  one("#promises .rows").append(row);
  row.addEventListener("input", count);
  one("input", row).focus();
}

const promised = () =>
  all("#promises .row")
    .map((row) => Object.fromEntries(all("input", row).map((field) => [field.name, field.value.trim()])))
    .filter((row) => row.filename)
    .map(({ filename, description, must_contain }) => ({ filename, description: description || filename, ...(must_contain && { must_contain }) }));

function count() {
  const many = promised().length;
  one("#promises summary small").textContent = many ? String(many) : "";
}

async function tools(details) {
  const place = one("fieldset", details);
  if (!details.open || one("label, p", place)) return;
  try {
    const found = await ask("GET", "/v1/tools");
    const box = (tool) => h("label", { title: tool.description ?? "" }, h("input", { type: "checkbox", value: tool.id, checked: Boolean(tool.granted_by_default) }), h("b", {}, tool.id), h("small", {}, (tool.description ?? "").split("\n")[0]));
    place.append(...(found.tools.length ? found.tools.map(box) : [h("p", { className: "note" }, "There are none.")]));
    place.addEventListener("change", () => {
      details.dataset.chosen = "yes";
      one("summary small", details).textContent = `${chosen().length} chosen`;
    });
  } catch (error) {
    place.append(h("p", { className: "note" }, error.message));
  }
}

const chosen = () => all("#tools input:checked").map((box) => box.value);

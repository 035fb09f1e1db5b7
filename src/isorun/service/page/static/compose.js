// The box below the conversation: a message, or a program with what it is given and what it promises.

import { all, ask, h, one, tell, warn } from "./dom.js";
import { busyStop, say, start } from "./app.js";

const form = one("#composer");
const text = one("#text");
const code = one("#code");
const editor = () => import("./editor.js");
const given = []; // files that were sent and wait for the next message or program

/** Make the box work. */
export function compose() {
  if (!form) return;
  for (const tab of all("[role=tab]", form)) tab.onclick = () => choose(tab);
  one("[role=tablist]", form).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = all("[role=tab]", form).find((tab) => tab.ariaSelected !== "true");
    choose(other);
    other.focus();
  });
  text.addEventListener("input", () => grow(text, 200));
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) event.preventDefault(), form.requestSubmit();
  });
  code.addEventListener("input", () => grow(code, 420));
  form.addEventListener("submit", (event) => (event.preventDefault(), void submit(event.submitter)));
  one("#upload").addEventListener("change", (event) => void upload(event.target));
  form.addEventListener("dragover", (event) => event.preventDefault());
  form.addEventListener("drop", (event) => (event.preventDefault(), void upload(event.dataTransfer)));
  document.addEventListener("busy", (event) => {
    one("#ask .send").textContent = event.detail ? "Stop" : "Send";
  });
}

const isCode = () => one("#tab-code").ariaSelected === "true";

function choose(tab) {
  for (const other of all("[role=tab]", form)) {
    other.ariaSelected = String(other === tab);
    other.tabIndex = other === tab ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = other !== tab;
  }
  if (isCode()) void editor().then(({ edited }) => edited());
  (isCode() ? code : text).focus();
}

function grow(area, most) {
  area.style.height = "auto";
  area.style.height = `${Math.min(most, area.scrollHeight + 2)}px`;
}

async function upload(from) {
  for (const file of from.files ?? []) {
    const body = new FormData();
    body.append("file", file);
    try {
      const sent = await ask("POST", "/v1/files", body);
      given.push(sent);
      tell(`${sent.name} is added`);
    } catch (error) {
      warn(`${file.name}: ${error.message}`);
    }
  }
  if (from.value) from.value = "";
  list();
}

function list() {
  const remove = (file) => () => (given.splice(given.indexOf(file), 1), list());
  one("#given").replaceChildren(...given.map((file) => h("li", {}, h("span", {}, file.name), h("button", { type: "button", ariaLabel: `Leave out ${file.name}`, onclick: remove(file) }, "×"))));
}

async function submit(button) {
  // The button says Stop then; Enter, with half a sentence written, must not.
  if (!isCode() && document.body.classList.contains("busy")) return button ? busyStop() : tell("The last turn has not ended");
  const inputs = given.map((file) => file.id);
  if (isCode()) {
    if (!code.value.trim()) return code.focus();
    const asked = (await editor()).asked(code.value);
    if (inputs.length) asked.inputs = inputs;
    if (!(await start(asked))) return;
    code.style.height = ""; // the card has the program: room for it
  } else {
    if (!text.value.trim()) return text.focus();
    if (!(await say(text.value, inputs))) return;
    text.value = "";
    grow(text, 200);
  }
  given.length = 0;
  list();
}

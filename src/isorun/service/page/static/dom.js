// What every module uses: elements from values, never from HTML text, and requests that say why they failed.

export const one = (selector, root = document) => root.querySelector(selector);
export const all = (selector, root = document) => [...root.querySelectorAll(selector)];

/** An element. Properties that are no attribute, such as `textContent` and `onclick`, are set as properties. */
export function h(tag, about = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) {
    if (name in made && name !== "form" && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const UNSEEN = /[^\P{C}\n\t]|[\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0d\uffa0]|[\u{e0100}-\u{e01ef}]/gu;

/** A program's text with all that cannot be seen, or that drives a terminal, as an escape. */
export function visible(text) {
  return text.replace(UNSEEN, (char) => {
    if (char === "\r") return "\\r";
    const code = char.codePointAt(0);
    const [mark, width] = code < 256 ? ["x", 2] : code < 65536 ? ["u", 4] : ["U", 8];
    return `\\${mark}${code.toString(16).padStart(width, "0")}`;
  });
}

/** Ask the service. Raises an Error whose text is the answer's own reason and hint. */
export async function ask(method, path, body) {
  const headers = body === undefined || body instanceof FormData ? {} : { "content-type": "application/json" };
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: headers["content-type"] ? JSON.stringify(body) : body });
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  if (answer.ok) return answer.headers.get("content-type")?.includes("json") ? answer.json() : answer.text();
  const problem = await answer.json().catch(() => ({}));
  const why = problem.detail ?? `The service answered ${answer.status}.`;
  throw Object.assign(new Error(problem.hint ? `${why} Hint: ${problem.hint}` : why), { status: answer.status, code: problem.code });
}

/** Tell a screen reader. */
export function tell(text) {
  one("#say").textContent = text;
}

/** Tell everybody, for as long as it takes to read. */
export function warn(text) {
  one("#toast")?.remove();
  const toast = h("div", { id: "toast", role: "alert" }, h("span", {}, text));
  toast.append(h("button", { className: "round", type: "button", ariaLabel: "Close", onclick: () => toast.remove() }, "×"));
  document.body.append(toast);
}

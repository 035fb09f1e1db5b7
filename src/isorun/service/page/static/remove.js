// Deleting a conversation: first a question, then all that came of it goes.

import { ask, h, one, tell, warn } from "./dom.js";
import { stop } from "./live.js";

/** Ask whether the conversation of *button* is to be deleted, and do so. */
export function removeTalk(button) {
  const item = button.closest("li");
  const name = one("a", item).textContent.trim();
  const why = h("p", { className: "banner", role: "alert", hidden: true });
  const keep = h("button", { className: "act", autofocus: true }, "Keep it");
  const go = h("button", { className: "send danger", type: "button" }, "Delete");
  const dialog = h(
    "dialog",
    { id: "remove", role: "alertdialog", "aria-labelledby": "remove-h", "aria-describedby": "remove-p" },
    h("h2", { id: "remove-h" }, "Delete this conversation?"),
    h("p", { id: "remove-p" }, h("b", {}, name), h("br"), "Its messages go, and its runs with their output and files. So do files that you added here and nowhere else. What still runs is stopped first. This cannot be undone."),
    why,
    h("form", { method: "dialog" }, keep, go),
  );
  go.onclick = async () => {
    go.disabled = true;
    try {
      await ask("DELETE", `/v1/conversations/${button.dataset.remove}`);
    } catch (error) {
      if (error.status !== 404) {
        why.textContent = error.message;
        why.hidden = go.disabled = false;
        return;
      }
    }
    dialog.close();
    gone(item, button.dataset.remove);
    tell(`${name} is deleted`);
  };
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/** Whether what the stream of *address* told of is not there any more; then a word says so. */
export async function isGone(address) {
  const status = await ask("GET", address.replace(/\/events$/, "")).then(() => 200, (error) => error.status);
  if (status === 404) warn("This was deleted in another window.");
  return status === 404;
}

/** Leave what is not there any more. */
function gone(item, id) {
  const { body } = document;
  if (body.dataset.conversation === id) {
    stop();
    return location.assign("/");
  }
  if (one(`.trail [href="/c/${id}"]`)) return location.assign("/runs");
  const near = item.nextElementSibling ?? item.previousElementSibling;
  if (!near || body.classList.contains("list")) return location.reload();
  item.remove();
  one("a", near).focus();
}

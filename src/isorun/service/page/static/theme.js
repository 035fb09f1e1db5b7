// Before anything is drawn: the theme that was chosen here, and that scripts run.
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  let kept = null;
  try {
    kept = localStorage.getItem("theme");
  } catch {
    // A browser that keeps nothing follows the system.
  }
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
})();

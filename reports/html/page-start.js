/* Everything begins here, once all modules are read. */

function drawAll() {
  drawTop();
  drawControls();
  drawTable();
  drawNotes();
  drawFigures();
}

function start() {
  rememberedTheme();
  drawAll();
  watchTips();
  const panel = byId("panel");
  panel.addEventListener("close", closedPanel);
  panel.addEventListener("click", (event) => event.target === panel && panel.close());
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input, select, textarea") || panel.open) return;
    byId("filter").focus();
    event.preventDefault();
  });
  openRemembered();
}

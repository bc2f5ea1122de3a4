/* Figures: drawings as images, which run no script; plotly's in their place when one asks for it. */

function drawFigures() {
  const section = byId("figures");
  section.hidden = state.family !== 0 || DATA.figures.length === 0;
  if (section.hidden || section.childElementCount) return;
  section.append(el("h2", {}, "Figures"), el("div", { class: "gallery" }, DATA.figures.map(figureOf)));
}

function figureOf(figure) {
  const title = figure.name.replaceAll("-", " ");
  const place = el("div", { class: "drawing" });
  const act = figure.interactive && button("interactive", () => interactive(figure, place, act), { class: "plain" });
  const node = el("figure", {}, place, el("figcaption", {}, el("span", {}, title), act));
  block(figure.block).then(({ svg }) => {
    if (svg === null) return act.click();
    const bytes = new TextEncoder().encode(svg);
    const text = Array.from({ length: Math.ceil(bytes.length / 8192) }, (_, i) =>
      String.fromCharCode(...bytes.subarray(i * 8192, (i + 1) * 8192))).join("");
    place.replaceChildren(el("img", { src: `data:image/svg+xml;base64,${btoa(text)}`, alt: `figure: ${title}` }));
  });
  return node;
}

async function interactive(figure, place, act) {
  act.disabled = true;
  act.textContent = "drawing …";
  try {
    const { spec } = await block(figure.block);
    await runPlotly();
    const height = place.clientHeight;
    place.replaceChildren();
    place.classList.add("live");
    const layout = { ...spec.layout, autosize: true, height: Math.max(460, spec.layout?.height ?? height) };
    await window.Plotly.newPlot(place, spec.data, layout, { displaylogo: false, responsive: true });
    act.remove();
  } catch (error) {
    act.textContent = `not drawn: ${error.message}`;
  }
}

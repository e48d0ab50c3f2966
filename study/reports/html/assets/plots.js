// Settings as lines, epsilon-eta curves, projections of vectors.
const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
const heat = (t) => CIVIDIS[Math.max(0, Math.min(CIVIDIS.length - 1, Math.floor(t * CIVIDIS.length)))];

function drawParallel(host, data) {
  host.replaceChildren();
  const width = host.clientWidth, height = 320, top = 58, bottom = 18, side = 50, n = data.axes.length;
  const root = svg(host, "svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `${data.names.length} settings of ${data.defense} as lines; their numbers are in the table of settings` });
  const place = data.axes.map((axis, i) => {
    const at = side + (i * (width - 2 * side)) / Math.max(1, n - 1);
    const of = axis.log ? Math.log10 : (v) => v;
    const values = (axis.choices ? axis.choices.map((_, k) => k) : axis.values).filter((v) => v !== null).map(of);
    const low = Math.min(...values), high = Math.max(...values);
    const y = (v) => (high === low ? (top + height - bottom) / 2 : height - bottom - ((of(v) - low) / (high - low)) * (height - top - bottom));
    svg(root, "line", { class: "axis", x1: at, x2: at, y1: top, y2: height - bottom });
    const [name, unit] = axis.label.split(" (");
    const words = name.length > 14 && name.includes(" ") ? [name.slice(0, name.lastIndexOf(" ")), name.slice(name.lastIndexOf(" ") + 1)] : [name];
    if (unit) words[words.length - 1] += ` (${unit}`;
    words.forEach((word, k) => svg(root, "text", { class: "label", x: at, y: top - 22 - 14 * (words.length - 1 - k), "text-anchor": "middle" }, word));
    if (axis.choices) axis.choices.forEach((c, k) => svg(root, "text", { x: at + 5, y: y(k) + 4 }, c));
    else for (const [v, dy] of low === high ? [[low, 4]] : [[low, 13], [high, 13 - 17]]) svg(root, "text", { x: at + 5, y: y(axis.log ? 10 ** v : v) + (dy > 0 ? 13 : -2) }, short(axis.log ? 10 ** v : v));
    return { at, y };
  });
  const errors = data.axes[n - 1].values, low = Math.min(...errors), high = Math.max(...errors);
  data.names.forEach((name, row) => {
    let d = "";
    data.axes.forEach((axis, i) => { if (axis.values[row] !== null) d += `${d ? "L" : "M"}${place[i].at},${place[i].y(axis.values[row])}`; });
    const css = heat(high === low ? 0.5 : (errors[row] - low) / (high - low));
    const look = { d, fill: "none", "stroke-dasharray": data.cut[row] ? "5 4" : "none" };
    svg(root, "path", { ...look, style: "stroke:var(--soft)", "stroke-width": 3.6, opacity: 0.55 });
    const line = svg(root, "path", { ...look, class: "line", style: `stroke:${css}`, "stroke-width": 2.4 });
    const reach = svg(root, "path", { d, fill: "none", stroke: "transparent", "stroke-width": 12 });
    const tell = (event) => {
      const lines = data.axes.map((axis) => `${axis.label}: ${axis.values[row] === null ? "not known" : axis.choices ? axis.choices[axis.values[row]] : short(axis.values[row])}`);
      line.setAttribute("stroke-width", 5);
      showTip([name, ...lines], event.clientX, event.clientY);
    };
    reach.addEventListener("pointermove", tell);
    reach.addEventListener("pointerleave", () => { line.setAttribute("stroke-width", 2.4); hideTip(); });
  });
}

function parallelPlot() {
  const host = byId("parallel"), select = byId("parallel-defense");
  if (!NUMBERS.parallel.length) { select.parentElement.remove(); html(host, "p", { class: "note" }, "No defense has two settings with a worst case."); return; }
  NUMBERS.parallel.forEach((data, i) => html(select, "option", { value: i }, `${data.defense} (${data.names.length})`));
  select.value = NUMBERS.parallel.reduce((best, data, i) => (data.names.length > NUMBERS.parallel[best].names.length ? i : best), 0);
  const draw = () => drawParallel(host, NUMBERS.parallel[Number(select.value)]);
  select.addEventListener("change", draw);
  responsive(host, draw);
}

function curvesPlot() {
  const host = byId("curves-chart");
  if (!host) return;
  const scaleX = linear(NUMBERS.curves.flatMap((c) => c.epsilon), 0), scaleY = linear([0, 1], -0.02, 1.02);
  const view = [scaleX.low, scaleX.high, scaleY.low, scaleY.high];
  let focus = -1, plot, lines = [];

  function stress(i, event) {
    for (const line of lines) line.band.setAttribute("visibility", "hidden");
    lines.forEach((line, k) => line.path.setAttribute("stroke-width", k === i ? 3.6 : 1.4));
    if (i < 0) { hideTip(); return; }
    const curve = NUMBERS.curves[i], half = NUMBERS.eta.indexOf(0.5);
    lines[i].band.setAttribute("visibility", "visible");
    const r = plot.root.getBoundingClientRect();
    const text = [curve.name, `trial ${curve.trial}, attacker ${curve.attacker}, ${curve.seeds} seeds`];
    text.push(`half of the images below an error of ${short(curve.epsilon[half])} (MSE)`);
    text.push(`a tenth below ${short(curve.epsilon[NUMBERS.eta.indexOf(0.1)])}`);
    showTip(text, event ? event.clientX : r.left + plot.x(curve.epsilon[half]), event ? event.clientY : r.top + plot.y(0.5), event ? null : () => stress(i));
  }

  function draw() {
    host.replaceChildren();
    plot = axes(host, scaleX, scaleY, view, "epsilon: error of an image (MSE in [0, 1])", Math.round(Math.min(420, Math.max(300, host.clientWidth * 0.5))));
    lines = NUMBERS.curves.map((curve, i) => {
      const along = (values) => values.map((v, k) => `${plot.x(v)},${plot.y(NUMBERS.eta[k])}`);
      const anchor = DEFENSE.get(curve.defense).slot === null, css = colour(curve.defense);
      const whole = curve.low.every((v) => v !== null) && curve.high.every((v) => v !== null);
      const around = whole ? `M${along(curve.low).join("L")}L${along(curve.high).reverse().join("L")}Z` : "M0,0";
      const band = svg(plot.inside, "path", { d: around, style: `fill:${css}`, opacity: 0.25, visibility: "hidden" });
      const group = svg(plot.inside, "g", { class: anchor || curve.front ? "" : "faint" });
      const d = `M${along(curve.epsilon).join("L")}`;
      const path = svg(group, "path", { d, class: "curve", fill: "none", style: `stroke:${css}`, "stroke-width": anchor ? 2.2 : 1.4, "stroke-dasharray": anchor ? "6 4" : "none" });
      const reach = svg(plot.inside, "path", { d, fill: "none", stroke: "transparent", "stroke-width": 12 });
      reach.addEventListener("pointermove", (event) => stress(i, event));
      reach.addEventListener("pointerleave", () => stress(-1));
      return { band, path };
    });
  }
  host.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    focus = (focus + step + lines.length) % lines.length;
    stress(focus);
    event.preventDefault();
  });
  host.addEventListener("blur", () => stress(-1));
  const key = html(host.parentElement, "div", { class: "key" });
  for (const name of new Set(NUMBERS.curves.map((c) => c.defense))) {
    const item = html(key, "span", { class: "choice", style: `color:${colour(name)}` });
    item.textContent = `${DEFENSE.get(name).slot === null ? "- -" : "—"} ${DEFENSE.get(name).label}`;
  }
  responsive(host, draw);
}

function vectorPlots() {
  const host = byId("vectors-charts");
  if (!host) return;
  for (const setting of NUMBERS.vectors) {
    for (const view of setting.views) {
      const figure = html(host, "figure");
      const moved = setting.moved === null ? "" : `, moved by ${short(setting.moved)} (mean l2)`;
      html(figure, "figcaption", {}, `${setting.name}: ${view.method}${moved}`);
      const label = `${view.method} of ${view.clean.length} clean and released vectors under ${setting.name}`;
      const root = svg(figure, "svg", { viewBox: "-110 -110 220 220", role: "img", "aria-label": label });
      for (const [x, y] of view.clean) svg(root, "circle", { cx: 100 * x, cy: -100 * y, r: 2.6, style: "fill:none;stroke:var(--c0)" });
      for (const [x, y] of view.released) svg(root, "path", { d: `M${100 * x - 2},${-100 * y - 2}l4,4m0,-4l-4,4`, style: "stroke:var(--c1)" });
    }
  }
  const key = html(host.parentElement, "p", { class: "note" });
  key.textContent = "Circles (blue): clean. Crosses (orange): released. Axes have no unit.";
}

parallelPlot();
curvesPlot();
vectorPlots();

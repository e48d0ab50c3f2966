// The frontier: plots over one set of points, with one key, one tooltip and one chosen setting.
const hidden = new Set();
let chosen = null;
const redraws = [];
const visible = () => NUMBERS.points.filter((p) => !hidden.has(p.defense));

function choosePoint(point) {
  chosen = point.trial;
  const place = byId("chosen");
  place.replaceChildren();
  for (const line of point.lines) html(place, "p", {}, line);
  const command = html(html(place, "p"), "span", { class: "command" });
  html(command, "code", {}, point.command);
  html(command, "button", { type: "button", class: "copy" }, "copy");
  for (const redraw of redraws) redraw();
}

// field: of a point. more: more is better. lines: [value, colour, dashes, text, below] across the plot.
function frontierPlot(field, more, lines = []) {
  const host = byId(`frontier-${field}`);
  if (!host) return;
  const points = NUMBERS.points.filter((p) => p[field][0] !== null);
  if (!points.length) { html(host, "p", { class: "note" }, "No setting has a worst case."); return; }
  const scaleX = zeroLog(points.map((p) => p.x));
  // What no attacker exceeds, what seems possible, what is extrapolated (of settings with a learning curve).
  const certified = (p) => (field === "excess" ? p.certified : null);
  const possible = (p) => ({ error: p.limit, excess: p.possible }[field] ?? null);
  const extrapolated = (p) => (field === "error" && p.extrapolated ? p.extrapolated : []);
  // Intervals of what is extrapolated may reach to zero: they end at the edge, and the tooltip has them whole.
  const needed = lines.filter((line) => line.needed).map((line) => line.value);
  const extent = points.flatMap((p) => [...p[field], certified(p), possible(p), ...extrapolated(p).slice(0, 1)].filter((v) => v !== null)).concat(needed);
  const scaleY = field === "excess" ? shares(extent) : more ? linear(extent) : linear(extent, undefined, 1.03);
  const whole = [scaleX.low, scaleX.high, scaleY.low, scaleY.high];
  let view = whole, plot, focus = -1, near = null;

  function draw() {
    host.replaceChildren();
    const height = Math.round(Math.min(430, Math.max(300, host.clientWidth * 0.72)));
    plot = axes(host, scaleX, scaleY, view, "confidence distortion (mean l2)", height);
    const { inside, x, y, width, box } = plot, shown = points.filter((p) => !hidden.has(p.defense));
    // Right of zero, where no setting but the undefended one is near: the others crowd at the right.
    const write = (at, css, text) => svg(inside, "text", { class: "line", x: Math.max(box.left + 4, x(0) + 14), y: at, style: `fill:${css}` }, text);
    const across = (v, css, dash, text, below) => {
      svg(inside, "line", { x1: box.left, x2: width - box.right, y1: y(v), y2: y(v), style: `stroke:${css}`, "stroke-dasharray": dash });
      write(y(v) + (below ? 13 : -5), css, text);
    };
    for (const p of shown.filter((q) => DEFENSE.get(q.defense).slot === null)) {
      const floor = p.defense === "label-only";
      across(p[field][0], colour(p.defense), floor ? "6 4" : "2 4", DEFENSE.get(p.defense).label, !floor);
    }
    for (const { value, css, dash, text, below } of lines) {
      // The mean image is often far above everything: then a word at the edge is enough.
      if (scaleY.of(value) > view[3]) write(box.top + 12, css, `${text}: ${short(value)} ↑`);
      else across(value, css, dash, text, below);
    }
    const front = shown.filter((p) => p.front).sort((a, b) => a.x - b.x);
    let best = null, path = "";
    for (const p of front) {
      const value = best === null ? p[field][0] : more ? Math.max(best, p[field][0]) : Math.min(best, p[field][0]);
      path += best === null ? `M${x(p.x)},${y(value)}` : `H${x(p.x)}V${y(value)}`;
      best = value;
    }
    if (path) svg(inside, "path", { class: "steps", d: path });
    for (const p of [...shown].sort((a, b) => a.front - b.front)) mark(inside, p, x(p.x), y);
    if (view !== whole) {
      html(host, "button", { type: "button", class: "reset" }, "undo zoom").addEventListener("click", () => { view = whole; draw(); });
    }
    listen();
  }

  function mark(inside, p, at, y) {
    const css = colour(p.defense), [value, low, high] = p[field], hollow = p.cut || !p.feasible;
    const group = svg(inside, "g", { class: p.front ? "" : "faint", "data-trial": p.trial });
    if (low !== null && high !== null) {
      svg(group, "path", { class: "bar", style: `stroke:${css}`, d: `M${at},${y(low)}V${y(high)}M${at - 3},${y(low)}h6M${at - 3},${y(high)}h6` });
    }
    const bound = certified(p), seems = possible(p);
    if (bound !== null) {
      svg(group, "path", { class: "certified", style: `stroke:${css}`, d: `M${at},${y(value)}V${y(bound)}` });
      svg(group, "path", { class: "cap", style: `stroke:${css}`, d: `M${at - 7},${y(bound) + 5}v-5h14v5` });
    }
    if (seems !== null) svg(group, "path", { class: "limit", style: `stroke:${css}`, d: `M${at - 4},${y(seems) - 4}l8,8m-8,0l8,-8` });
    if (extrapolated(p).length) {
      const [limit, least, most] = p.extrapolated, to = at + 9;
      svg(group, "path", { class: "extrapolated", style: `stroke:${css}`, d: `M${to},${y(least)}V${y(most)}`, "stroke-dasharray": "1 2" });
      svg(group, "path", { class: "extrapolated", style: `stroke:${css}`, d: `M${to - 5},${y(limit)}h10m-5,-5v10` });
    }
    const look = hollow ? `fill:var(--paper);stroke:${css};stroke-width:1.6` : `fill:${css};stroke:var(--paper);stroke-width:0.8`;
    svg(group, "path", { class: "point", d: shape(p.defense), transform: `translate(${at},${y(value)})`, style: look, "stroke-dasharray": p.cut ? "2 2" : "none" });
    if (p.knee || p.trial === chosen) svg(inside, "circle", { class: "ring", cx: at, cy: y(value), r: p.trial === chosen ? 12 : 9 });
  }

  const place = (p) => [plot.x(p.x), plot.y(p[field][0])];

  function nearest(event) {
    const [ex, ey] = plot.local(event);
    let found = null, least = 24;
    for (const p of visible()) {
      if (p[field][0] === null) continue;
      const [px, py] = place(p), d = Math.hypot(px - ex, py - ey) - (p.front ? 0.01 : 0); // of equals, the front's
      if (d < least) { least = d; found = p; }
    }
    return found;
  }

  function tipAt(p, keyboard = false) {
    const r = plot.root.getBoundingClientRect(), [px, py] = place(p), k = r.width / plot.width;
    const others = visible().filter((q) => q !== p && q[field][0] !== null && Math.hypot(place(q)[0] - px, place(q)[1] - py) < 7);
    const also = others.slice(0, 4).map((q) => `also here: ${q.lines[0]}`);
    if (others.length > 4) also.push(`and ${others.length - 4} more: zoom in`);
    showTip([...p.lines, ...also], r.left + px * k, r.top + py * k, keyboard ? () => tipAt(p, true) : null);
  }

  function listen() {
    let from = null, band = null;
    const root = plot.root;
    root.addEventListener("pointermove", (event) => {
      if (from) {
        const [ax, ay] = from, [bx, by] = plot.local(event);
        band = band || svg(root, "rect", { class: "zoom" });
        for (const [k, v] of Object.entries({ x: Math.min(ax, bx), y: Math.min(ay, by), width: Math.abs(ax - bx), height: Math.abs(ay - by) })) band.setAttribute(k, v);
        return;
      }
      near = nearest(event);
      if (near) tipAt(near); else hideTip();
    });
    root.addEventListener("pointerleave", () => { from = null; if (band) band.remove(); band = null; hideTip(); });
    root.addEventListener("pointerdown", (event) => { if (event.pointerType === "mouse" && event.button === 0) from = plot.local(event); });
    root.addEventListener("pointerup", (event) => {
      const start = from, end = plot.local(event);
      from = null;
      if (band) band.remove();
      band = null;
      if (start && Math.hypot(start[0] - end[0], start[1] - end[1]) > 12) {
        const [a, b] = [plot.back(start), plot.back(end)];
        view = [Math.min(a[0], b[0]), Math.max(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[1], b[1])];
        hideTip();
        draw();
        return;
      }
      const hit = nearest(event);
      if (hit) { choosePoint(hit); tipAt(hit); }
    });
    root.addEventListener("dblclick", () => { if (view !== whole) { view = whole; draw(); } });
  }

  host.addEventListener("keydown", (event) => {
    const order = visible().filter((p) => p[field][0] !== null).sort((a, b) => a.x - b.x || (a.trial < b.trial ? -1 : 1));
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (step && order.length) {
      focus = Math.max(0, Math.min(order.length - 1, focus + step));
      near = order[focus];
      tipAt(near, true);
      event.preventDefault();
    } else if (event.key === "Enter" && near) { choosePoint(near); tipAt(near, true); }
  });
  host.addEventListener("blur", hideTip);
  redraws.push(draw);
  responsive(host, draw);
}

function drawKey() {
  for (const defense of NUMBERS.defenses) {
    const count = NUMBERS.points.filter((p) => p.defense === defense.name).length;
    const button = html(byId("key"), "button", { type: "button", "aria-pressed": "true" });
    const sign = svg(button, "svg", { viewBox: "-9 -9 18 18", "aria-hidden": "true" });
    svg(sign, "path", { d: shape(defense.name), style: `fill:${colour(defense.name)}` });
    html(button, "span", {}, count === 1 ? defense.label : `${defense.label} (${count})`);
    button.addEventListener("click", () => {
      if (!hidden.delete(defense.name)) hidden.add(defense.name);
      button.setAttribute("aria-pressed", String(!hidden.has(defense.name)));
      for (const redraw of redraws) redraw();
    });
  }
}

drawKey();
const meanImage = { value: NUMBERS.meanImage, css: "var(--mean)", dash: "8 3 2 3", text: "mean image (learned nothing)" };
const margin = { value: NUMBERS.margin, css: "var(--c2)", dash: "1 3", text: `margin of ${NUMBERS.margin}`, needed: true };
const chance = { value: NUMBERS.chance, css: "var(--floor)", dash: "none", text: `chance: ${NUMBERS.chance}`, below: true, needed: true };
frontierPlot("error", true, NUMBERS.meanImage === null ? [] : [meanImage]);
frontierPlot("accuracy", false);
frontierPlot("excess", false, [margin]);
frontierPlot("identification", false, [chance]);

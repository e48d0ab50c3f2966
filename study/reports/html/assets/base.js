// Shared by the drawings: the numbers, SVG elements, scales, axes, the tooltip. Text is always set as text.
const NUMBERS = JSON.parse(document.getElementById("numbers").textContent);
const byId = (id) => document.getElementById(id);
const DEFENSE = new Map(NUMBERS.defenses.map((f) => [f.name, f]));

function svg(parent, name, attributes = {}, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function html(parent, name, attributes = {}, text) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

const short = (value) => {
  const rounded = Number(value.toPrecision(3));
  return rounded && Math.abs(rounded) < 1e-3 ? rounded.toExponential() : rounded.toString();
};

// Colour by a defense's place; the anchors have their own. Never by colour alone: shapes differ, too.
function colour(name) {
  const defense = DEFENSE.get(name);
  if (defense.slot === null) return name === "label-only" ? "var(--floor)" : "var(--bare)";
  return `var(--c${defense.slot})`;
}

function polygon(n, r, turn, inner) {
  const steps = inner ? 2 * n : n;
  const at = (i) => {
    const a = turn + (2 * Math.PI * i) / steps, d = inner && i % 2 ? inner : r;
    return `${(d * Math.cos(a)).toFixed(2)},${(d * Math.sin(a)).toFixed(2)}`;
  };
  return `M${Array.from({ length: steps }, (_, i) => at(i)).join("L")}Z`;
}

const UP = -Math.PI / 2;
const SHAPES = [
  "M5,0A5,5 0 1 1 -5,0A5,5 0 1 1 5,0Z", "M-4.5,-4.5H4.5V4.5H-4.5Z", polygon(3, 6.4, UP), polygon(4, 6, UP),
  polygon(3, 6.4, -UP), "M-2,-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z", polygon(4, 7, Math.PI / 4, 2.5),
  polygon(3, 6.4, Math.PI), polygon(3, 6.4, 0), polygon(5, 9, UP, 3.8), polygon(6, 6, UP),
];
const shape = (name) => SHAPES[DEFENSE.get(name).shape % SHAPES.length];

// Logarithmic with a place for zero: linear below the smallest power of ten that holds a value.
function zeroLog(values) {
  const positive = values.filter((v) => v > 0);
  const low = 10 ** Math.floor(Math.log10(positive.length ? Math.min(...positive) : 1e-3));
  const of = (v) => (v < low ? (0.6 * v) / low : 0.6 + Math.log10(v / low));
  const ticks = (a, b) => {
    const out = a <= 0.05 && b >= -0.05 ? [0] : [];
    for (let p = low; of(p) <= b + 1e-9; p *= 10) {
      for (const m of [1, 2, 5]) if (of(m * p) >= a - 1e-9 && of(m * p) <= b + 1e-9 && (m === 1 || b - a < 1.6)) out.push(m * p);
    }
    return out;
  };
  return { of, ticks, low: -0.2, high: of(Math.max(low, ...positive)) + 0.15 };
}

// Shares of which small ones matter: linear around zero, logarithmic from 0.02 on.
function shares(values) {
  const linear = 0.02, at = [-0.02, 0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1];
  const of = (v) => (Math.abs(v) < linear ? v / linear : Math.sign(v) * (1 + Math.log(Math.abs(v) / linear)));
  const ticks = (a, b) => at.filter((v) => of(v) >= a - 1e-9 && of(v) <= b + 1e-9);
  return { of, ticks, low: of(Math.max(-linear, Math.min(-linear / 2, ...values))), high: of(Math.max(0.1, ...values)) + 0.2 };
}

function linear(values, least, most) {
  let low = Math.min(...values), high = Math.max(...values);
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  low = least === undefined ? low - room : Math.max(least, low - room);
  high = most === undefined ? high + room : Math.min(most, high + room);
  const ticks = (a, b, n = 5) => {
    const rough = (b - a) / n, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((m) => m * power >= rough) * power;
    const out = [];
    for (let v = Math.ceil(a / step) * step; v <= b + step * 1e-6; v += step) out.push(Number(v.toPrecision(12)));
    return out;
  };
  return { of: (v) => v, ticks, low, high };
}

// Axes of a plot: returns places of values and of the pointer. view: [x from, x to, y from, y to], transformed.
function axes(host, scaleX, scaleY, view, labelX, height) {
  const width = Math.max(280, host.clientWidth), box = { left: 52, right: 10, top: 8, bottom: 42 };
  const [x0, x1, y0, y1] = view, inW = width - box.left - box.right, inH = height - box.top - box.bottom;
  const root = svg(host, "svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
  const px = (t) => box.left + ((t - x0) / (x1 - x0)) * inW, py = (t) => box.top + ((y1 - t) / (y1 - y0)) * inH;
  let last = -99;
  for (const v of scaleX.ticks(x0, x1)) {
    const at = px(scaleX.of(v));
    svg(root, "line", { class: "grid", x1: at, x2: at, y1: box.top, y2: height - box.bottom });
    if (at - last > 34) svg(root, "text", { x: at, y: height - box.bottom + 15, "text-anchor": "middle" }, short(v));
    if (at - last > 34) last = at;
  }
  for (const v of scaleY.ticks(y0, y1)) {
    const at = py(scaleY.of(v));
    svg(root, "line", { class: "grid", x1: box.left, x2: width - box.right, y1: at, y2: at });
    svg(root, "text", { x: box.left - 6, y: at + 4, "text-anchor": "end" }, short(v));
  }
  svg(root, "rect", { class: "axis", x: box.left, y: box.top, width: inW, height: inH });
  svg(root, "text", { class: "label", x: box.left + inW / 2, y: height - 8, "text-anchor": "middle" }, labelX);
  const id = `clip-${host.id}`;
  svg(svg(root, "clipPath", { id }), "rect", { x: box.left, y: box.top, width: inW, height: inH });
  const inside = svg(root, "g", { "clip-path": `url(#${id})` });
  const local = (event) => {
    const r = root.getBoundingClientRect();
    return [((event.clientX - r.left) / r.width) * width, ((event.clientY - r.top) / r.height) * height];
  };
  const back = ([x, y]) => [x0 + ((x - box.left) / inW) * (x1 - x0), y1 - ((y - box.top) / inH) * (y1 - y0)];
  return { root, inside, x: (v) => px(scaleX.of(v)), y: (v) => py(scaleY.of(v)), local, back, width, box };
}

const tooltip = byId("tooltip");
let follow = null;

// again: shows it once more, called when the page scrolls (a tooltip of the keyboard's stays with its point).
function showTip(lines, clientX, clientY, again = null) {
  follow = again;
  tooltip.replaceChildren();
  for (const line of lines) html(tooltip, "div", {}, line);
  tooltip.hidden = false;
  const r = tooltip.getBoundingClientRect(), gap = 14;
  const left = clientX + gap + r.width > innerWidth ? clientX - gap - r.width : clientX + gap;
  const top = clientY + gap + r.height > innerHeight ? clientY - gap - r.height : clientY + gap;
  tooltip.style.left = `${Math.max(4, Math.min(left, innerWidth - r.width - 4))}px`;
  tooltip.style.top = `${Math.max(4, top)}px`;
}

const hideTip = () => { follow = null; tooltip.hidden = true; };
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
addEventListener("scroll", () => (follow ? follow() : hideTip()), { passive: true });

// Draw now and whenever the width changes.
function responsive(host, draw) {
  let width = 0;
  const again = () => { if (host.clientWidth && host.clientWidth !== width) { width = host.clientWidth; draw(); } };
  new ResizeObserver(again).observe(host);
  again();
}

byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

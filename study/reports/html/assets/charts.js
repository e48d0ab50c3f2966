// Unpacks Vega, draws the charts, and keeps one setting chosen: its details, its marks, its address.
const byId = (id) => document.getElementById(id);
const NUMBERS = JSON.parse(byId("numbers").textContent);
const OPTIONS = { ast: true, renderer: "svg", actions: false, tooltip: { disableDefaultStyle: true } }; // ast: nothing is evaluated
const views = []; // of each chart: its view, its part of the page (a study, or the comparison)

async function unpackLibrary() {
  const bytes = Uint8Array.from(atob(byId("library").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text(); // the content policy knows its hash
  document.head.append(script);
}

function add(parent, name, attributes = {}, text) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

const settingsOf = (part) => part.datasets.settings || part.datasets.all;

function dataOf(part, chart) {
  const rows = part.datasets[chart.data].filter((row) => !chart.only || row.defense === chart.only);
  return { [chart.data]: rows.map(({ lines, command, ...shown }) => shown) }; // copies: Vega writes into its rows
}

async function draw(host, part, chart) {
  const narrow = host.clientWidth < 480;
  const height = chart.tall ? (narrow ? 255 : 370) : narrow ? 200 : 225;
  const { view } = await vegaEmbed(host, { ...chart.spec, height, datasets: { ...chart.spec.datasets, ...dataOf(part, chart) } }, OPTIONS);
  views.push({ view, part });
  view.addEventListener("click", (event, item) => {
    if (item && item.datum && item.datum.trial) choose(partOf(item.datum, part), item.datum.trial);
  });
  host.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!step || !chart.spec.params) return;
    event.preventDefault();
    const hidden = view.signal("hidden"), order = settingsOf(part).filter((row) => !hidden.includes(row.defense) && (!chart.only || row.defense === chart.only));
    order.sort((a, b) => a.distortion - b.distortion || (a.trial < b.trial ? -1 : 1));
    if (!order.length) return;
    const at = order.indexOf(part.row);
    const next = order[at < 0 ? 0 : Math.max(0, Math.min(order.length - 1, at + step))];
    choose(partOf(next, part), next.trial);
    part.row = next;
  });
}

// The study of a row: on a page of several, the comparison's rows say which.
const partOf = (row, part) => (row.part === undefined ? part : NUMBERS.studies[row.part]);

function setSignal(part, name, value) {
  for (const entry of views) if (entry.part === part) entry.view.signal(name, value).runAsync();
}

function choose(part, trial, silently = false) {
  const row = settingsOf(part).find((one) => one.trial === trial);
  if (!row) return;
  part.chosen = trial;
  part.row = row;
  setSignal(part, "chosen", trial);
  const place = byId(`${part.prefix}chosen`);
  place.replaceChildren();
  row.lines.forEach((line, i) => add(place, i ? "p" : "h3", {}, line));
  const command = add(add(place, "p"), "span", { class: "command" });
  add(command, "code", {}, row.command);
  add(command, "button", { type: "button", class: "copy" }, "copy");
  place.hidden = false;
  for (const line of document.querySelectorAll(`table.settings tr[data-trial]`)) {
    line.classList.toggle("is-chosen", line.dataset.trial === trial && line.closest("article").dataset.study === String(NUMBERS.studies.indexOf(part)));
  }
  if (!silently) history.replaceState(null, "", `#${part.prefix}${encodeURIComponent(trial)}`);
}

// A permalink: #t0012-noise, or #t0012; on a page of several studies #NAME/t0012.
function fromAddress() {
  const wanted = decodeURIComponent(location.hash.slice(1));
  for (const part of NUMBERS.studies) {
    if (!wanted || !wanted.startsWith(part.prefix)) continue;
    const name = wanted.slice(part.prefix.length), rows = settingsOf(part);
    const row = rows.find((one) => one.trial === name) || rows.find((one) => one.trial.split("-")[0] === name);
    if (row) choose(part, row.trial, true);
  }
}

function save(name, url) {
  const link = add(document.body, "a", { href: url, download: name, hidden: "" });
  link.click();
  link.remove();
}

function csvOf(part, chart) {
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value); // no formula
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const rows = Object.values(dataOf(part, chart))[0];
  return [chart.columns, ...rows.map((row) => chart.columns.map((c) => row[c]))].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

// The chart in the light colours, whatever the page has, 1,000 pixels wide at twice the resolution.
async function pngOf(part, chart) {
  const light = add(document.body, "div", { class: "light", hidden: "" }), values = getComputedStyle(light);
  const spec = JSON.parse(JSON.stringify(chart.spec).replace(/var\((--\w+)\)/g, (_, name) => values.getPropertyValue(name).trim()));
  const hidden = part.hidden || [], params = spec.params.map((p) => ({ ...p, ...({ hidden: { value: hidden }, chosen: { value: part.chosen || "" } }[p.name] || {}) }));
  const whole = { ...spec, params, width: 1000, height: chart.tall ? 520 : 420, background: "#ffffff", padding: 12, title: { text: chart.title, anchor: "start" }, datasets: { ...spec.datasets, ...dataOf(part, chart) } };
  const { view } = await vegaEmbed(document.createElement("div"), whole, { ...OPTIONS, renderer: "canvas" });
  const url = await view.toImageURL("png", 2);
  view.finalize();
  light.remove();
  return url;
}

function equip(host, part, chart, name) {
  const figure = host.closest("figure"), file = `${part.name || "studies"}-${name}`.replace(/[^\w.-]+/g, "-");
  figure.querySelector(".csv").addEventListener("click", () => save(`${file}.csv`, URL.createObjectURL(new Blob([csvOf(part, chart)], { type: "text/csv" }))));
  figure.querySelector(".png").addEventListener("click", async () => save(`${file}.png`, await pngOf(part, chart)));
}

function hideTooltip() {
  const tooltip = byId("vg-tooltip-element");
  if (tooltip) tooltip.classList.remove("visible");
}

addEventListener("keydown", (event) => { if (event.key === "Escape") hideTooltip(); });
addEventListener("scroll", hideTooltip, { passive: true });
addEventListener("beforeprint", hideTooltip);
addEventListener("hashchange", fromAddress);

byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

for (const button of document.querySelectorAll(".key button")) {
  button.addEventListener("click", () => {
    const part = NUMBERS.studies[Number(button.closest("article").dataset.study)];
    const hidden = new Set(part.hidden || []);
    if (!hidden.delete(button.dataset.defense)) hidden.add(button.dataset.defense);
    part.hidden = [...hidden];
    button.setAttribute("aria-pressed", String(!hidden.has(button.dataset.defense)));
    setSignal(part, "hidden", part.hidden);
  });
}

async function drawAll() {
  const hosts = [...document.querySelectorAll("[data-chart]")];
  fromAddress();
  try {
    await unpackLibrary();
  } catch (error) {
    for (const host of hosts) host.textContent = "This browser cannot unpack the drawings; the tables hold the same numbers.";
    return;
  }
  for (const host of hosts) {
    const article = host.closest("article"), name = host.dataset.chart;
    const part = article ? NUMBERS.studies[Number(article.dataset.study)] : NUMBERS.compare;
    await draw(host, part, part.charts[name]);
    equip(host, part, part.charts[name], name);
    if (part.chosen) setSignal(part, "chosen", part.chosen);
  }
  document.documentElement.dataset.drawn = "yes";
}

drawAll();

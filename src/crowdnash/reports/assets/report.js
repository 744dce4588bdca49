// Puts Plotly's charts in place of the pictures, with a menu, a table of the numbers, and reading by
// keyboard, which Plotly lacks. A picture stays if anything goes wrong. Text from the run's data only
// ever becomes textContent, an attribute, or what plotly.py escaped for Plotly.

const night = matchMedia("screen and (prefers-color-scheme: dark)");
const touch = matchMedia("(pointer: coarse)").matches;
const shown = new Set();

function html(parent, name, attributes = {}, text = undefined) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent?.append(element);
  return element;
}

/** A number as the tables show it: four digits, or per cent. */
function readable(value, share = false) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return value;
  if (share) return `${(100 * value).toFixed(1)}%`;
  if (Number.isInteger(value)) return String(value).replace("-", "−");
  const size = Math.abs(value);
  const exact = size < 1 ? value.toFixed(4) : String(Number(value.toPrecision(5)));
  return (size >= 1e6 || size < 1e-4 ? value.toExponential(2) : exact).replace(/-/g, "−");
}

/** A figure in the colours of day or night; on a logarithmic axis bands end at the floor. */
function themed(figure, floor = null) {
  const style = getComputedStyle(document.documentElement);
  const colour = (_, name) => style.getPropertyValue(name).trim();
  const { data, layout } = JSON.parse(JSON.stringify(figure).replace(/var\((--[a-z]+)\)/g, colour));
  if (layout.yaxis.type === "log" && floor !== null)
    for (const trace of data) if (trace.fill) trace.y = trace.y.map((y) => Math.max(y, floor));
  return { data, layout: { ...layout, dragmode: touch ? false : "zoom" } };
}

class Chart {
  constructor(parent, spec, level) {
    this.spec = spec;
    this.figure = spec.figure;
    this.at = null;
    this.root = html(parent, "div", { class: "plot" });
    this.title = html(this.root, level, {}, spec.title);
    this.canvas = html(this.root, "div", { class: "canvas", tabindex: 0, role: "application", "aria-roledescription": "chart" });
    this.heard = html(this.root, "div", { class: "heard", "aria-live": "polite" });
    this.canvas.addEventListener("keydown", (event) => this.press(event));
    this.canvas.addEventListener("blur", () => Plotly.Fx.unhover(this.canvas));
    if (spec.log_floor !== null && spec.log_floor !== undefined) this.addSwitch();
    this.addTable();
    shown.add(this);
  }

  remove() {
    shown.delete(this);
    Plotly.purge(this.canvas);
    this.root.remove();
  }

  draw() {
    const { data, layout } = themed(this.figure, this.spec.log_floor);
    const names = `${this.spec.y_name ? `${this.spec.y_name} by ` : ""}${this.spec.x_name}`;
    this.canvas.setAttribute("aria-label", `${this.title.textContent}: ${names}. Arrow keys read values, plus and minus zoom, Escape shows all.`);
    Plotly.react(this.canvas, data, layout, {
      responsive: true,
      displaylogo: false,
      modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d"]],
    });
  }

  addSwitch() {
    const controls = html(null, "div", { class: "controls" });
    this.title.after(controls);
    const label = html(controls, "label");
    const box = html(label, "input", { type: "checkbox" });
    label.append("logarithmic");
    box.checked = this.figure.layout.yaxis.type === "log";
    box.addEventListener("change", () => {
      this.figure.layout.yaxis.type = box.checked ? "log" : "linear";
      this.draw();
    });
  }

  /** What there is to read, for everyone who cannot point: written when it is opened. */
  addTable() {
    const details = html(this.root, "details");
    html(details, "summary", {}, "numbers");
    details.addEventListener("toggle", () => {
      details.querySelector(".scroll")?.remove();
      if (!details.open) return;
      const scroll = html(details, "div", { class: "scroll", role: "region", tabindex: 0, "aria-label": this.title.textContent });
      const table = html(scroll, "table", { class: "numbers" });
      const rows = this.positions().map((_, k) => this.reading(k));
      const heads = html(html(table, "thead"), "tr");
      for (const [name] of rows[0] ?? []) html(heads, "th", { scope: "col" }, name);
      const body = html(table, "tbody");
      for (const row of rows) {
        const line = html(body, "tr");
        for (const [, value] of row) html(line, "td", {}, value);
      }
    });
  }

  /** The traces that hold values; bands repeat them. */
  traces() {
    return this.figure.data.map((trace, curve) => ({ ...trace, curve })).filter(({ fill }) => !fill);
  }

  positions() {
    return this.traces()[0].x;
  }

  /** Names and values at the k-th x. */
  reading(k) {
    const { xaxis, yaxis } = this.figure.layout;
    const plain = (text) => new DOMParser().parseFromString(text, "text/html").documentElement.textContent;
    const share = (axis) => axis.tickformat?.endsWith("%");
    const values = this.traces().flatMap(({ type, name, y, z, customdata }) => {
      if (type === "heatmap") return y.map((row, r) => [plain(row), readable(z[r][k])]);
      const ends = customdata?.[k] ?? [y[k]];
      return [[plain(name), [...new Set(ends)].map((end) => readable(end, share(yaxis))).join(" – ")]];
    });
    return [[this.spec.x_name, readable(this.positions()[k], share(xaxis))], ...values];
  }

  press(event) {
    if (event.target !== this.canvas) return;
    const x = this.positions();
    const [low, high] = this.canvas._fullLayout.xaxis.range;
    const inside = x.map((_, k) => k).filter((k) => x[k] >= low && x[k] <= high);
    const now = inside.indexOf(this.at);
    const next = { ArrowRight: now + 1, ArrowLeft: now < 0 ? inside.length - 1 : now - 1, Home: 0, End: inside.length - 1 };
    const middle = now < 0 ? (low + high) / 2 : x[this.at];
    const zoom = { "+": 0.25, "=": 0.25, "-": 1 };
    if (event.key in next) {
      this.at = inside[Math.min(Math.max(next[event.key], 0), inside.length - 1)] ?? null;
      if (this.at === null) return;
      const points = this.traces().map(({ curve }) => ({ curveNumber: curve, pointNumber: this.at }));
      if (this.figure.layout.hovermode === "closest") Plotly.Fx.hover(this.canvas, points);
      else if (this.figure.layout.hovermode) Plotly.Fx.hover(this.canvas, { xval: x[this.at] });
      this.heard.textContent = this.reading(this.at).map((pair) => pair.join(": ")).join("; ");
    } else if (event.key in zoom) {
      const room = zoom[event.key] * (high - low);
      Plotly.relayout(this.canvas, { "xaxis.range": [middle - room, middle + room] });
    } else if (event.key === "Escape") {
      Plotly.relayout(this.canvas, { "xaxis.autorange": true });
    } else return;
    event.preventDefault();
  }
}

function addMenu(parent, name, options, choose) {
  const label = html(html(parent, "div", { class: "controls" }), "label", {}, name);
  const select = html(label, "select");
  for (const [value, text] of options) html(select, "option", { value }, text);
  select.addEventListener("change", () => choose(select.value));
  choose(select.value);
}

function addCharts(place, { title, choice_name, charts }) {
  if (title) html(place, "h3", {}, title);
  const menu = html(place, "div");
  const panels = html(place, "div", { class: "panels" });
  const draw = (choice) => {
    for (const chart of [...shown]) if (panels.contains(chart.root)) chart.remove();
    const specs = charts.filter((spec) => spec.choice === choice);
    // All in their places before any is drawn, so that they know how wide they are.
    specs.map((spec) => new Chart(panels, spec, title ? "h4" : "h3")).forEach((chart) => chart.draw());
  };
  const choices = [...new Set(charts.map(({ choice }) => choice))];
  if (choices.length < 2) draw(choices[0]);
  else addMenu(menu, choice_name, choices.map((choice) => [choice, choice]), draw);
}

/** The gains against a column that the reader picks. */
function addScatter(section, { columns, x_names, scatter, standard }) {
  const of = (name) => columns.find((column) => column.name === name);
  const figure = html(null, "figure");
  section.querySelector(".scroll").before(figure);
  let chart = null;
  addMenu(figure, "Gain against", x_names.map((name) => [name, of(name).title]), (name) => {
    chart?.remove();
    const { title, values } = of(name);
    const spec = structuredClone(scatter);
    Object.assign(spec, { title: `${standard} against ${title}`, x_name: title });
    spec.figure.data[0].x = values;
    spec.figure.layout.xaxis.title.text = title.replace(/&/g, "&amp;").replace(/</g, "&lt;");
    chart = new Chart(figure, spec, "h3");
    chart.draw();
  });
}

async function start() {
  const { figures, agents } = JSON.parse(document.getElementById("report-data").textContent);
  const section = document.getElementById("agents");
  if (agents && section) new AgentTable(section, agents);
  // The library is packed: a third of its size. As a script element it must still have the hash
  // that the page allows.
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  html(document.head, "script", {}, await new Response(stream).text());
  for (const picture of document.querySelectorAll("img[data-charts]")) {
    const place = html(null, "div", { class: "interactive" });
    picture.before(place);
    try {
      addCharts(place, figures[picture.dataset.charts]);
      picture.hidden = true;
    } catch (error) {
      place.remove();
      console.error(error);
    }
  }
  if (agents?.x_names.length && section) addScatter(section, agents);
  night.addEventListener("change", () => shown.forEach((chart) => chart.draw()));
  document.documentElement.dataset.ready = "";
}

start();

// One chart: lines with bands, stacked bars, or points, all series over the same x.
//
// Pointing, or the arrow keys, reads values out; dragging, or + and −, magnifies a range of x; a
// double click, Escape or the button shows everything again; the legend hides and shows series.

const MARGIN = { top: 12, right: 22, bottom: 44, left: 62 };
const EDGE = 4;

class Chart {
  /** `spec`: see interactive_chart.py; `notes[k]`, if given, heads the read-out of x[k]. */
  constructor(parent, spec, notes = null) {
    Object.assign(this, { spec, notes, range: null, at: null, hidden: new Set(), started: null });
    this.root = html(parent, "div", { class: "plot" });
    html(this.root, "h3", {}, spec.title);
    if (spec.series.length > 1) this.addLegend();
    this.canvas = html(this.root, "div", { class: "canvas" });
    this.picture = svg(this.canvas, "svg", {
      tabindex: 0,
      role: "application",
      "aria-roledescription": "chart",
      "aria-label": `${spec.title}: ${spec.y_name} by ${spec.x_name}. Arrow keys read values, plus and minus zoom, Escape shows all.`,
    });
    this.zoomOut = html(this.canvas, "button", { class: "zoom-out", type: "button", hidden: "" }, "show all");
    this.readOut = html(this.canvas, "div", { class: "read-out", hidden: "", "aria-hidden": "true" });
    this.heard = html(this.canvas, "div", { class: "heard", "aria-live": "polite" });
    this.listen();
    this.watcher = new ResizeObserver(() => {
      if (this.root.clientWidth && this.root.clientWidth !== this.width) this.draw();
    });
    this.watcher.observe(this.root);
    this.draw();
  }

  remove() {
    this.watcher.disconnect();
    this.root.remove();
  }

  addLegend() {
    const legend = html(this.root, "div", { class: "legend", role: "group", "aria-label": "shown" });
    this.spec.series.forEach((series, k) => {
      const button = html(legend, "button", { type: "button", "aria-pressed": "true" });
      addSwatch(button, series);
      button.append(series.name);
      button.addEventListener("click", () => {
        const shown = this.hidden.delete(k) || !this.hidden.add(k);
        button.setAttribute("aria-pressed", String(shown));
        this.draw();
      });
    });
  }

  listen() {
    const on = (name, act) => this.picture.addEventListener(name, act);
    on("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.started = this.place(event).x;
      this.picture.setPointerCapture(event.pointerId);
    });
    on("pointermove", (event) => this.move(this.place(event)));
    on("pointerup", (event) => {
      const ends = [this.started, this.place(event).x].sort((a, b) => a - b);
      const dragged = this.started !== null && ends[1] - ends[0] > 8;
      this.started = null;
      if (dragged) this.show(ends.map((x) => this.scaleX.invert(x)));
      else this.move(this.place(event));
    });
    on("pointercancel", () => this.stop());
    on("pointerleave", () => this.started === null && this.stop());
    on("dblclick", () => this.show(null));
    on("blur", () => this.stop());
    on("keydown", (event) => this.press(event));
    this.zoomOut.addEventListener("click", () => {
      this.show(null);
      this.picture.focus();
    });
  }

  place(event) {
    const box = this.picture.getBoundingClientRect();
    const scale = this.width / box.width;
    return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
  }

  press(event) {
    const shown = this.visible();
    const now = shown.indexOf(this.at);
    const [low, high] = this.range ?? this.extent();
    const middle = this.at === null ? (low + high) / 2 : this.spec.x[this.at];
    const steps = { ArrowRight: now + 1, ArrowLeft: now < 0 ? shown.length - 1 : now - 1, Home: 0, End: shown.length - 1 };
    if (event.key in steps) {
      const next = shown[Math.min(Math.max(steps[event.key], 0), shown.length - 1)];
      if (next !== undefined) this.read(next);
      this.heard.textContent = this.readOut.innerText.replace(/\s+/g, " ");
    } else if (event.key === "+") {
      this.show([middle - (high - low) / 4, middle + (high - low) / 4]);
    } else if (event.key === "-") {
      this.show([middle - (high - low), middle + (high - low)]);
    } else if (event.key === "Escape") {
      this.show(null);
    } else return;
    event.preventDefault();
  }

  /** Show this range of x, as far as there is data in it; null: all. */
  show(range) {
    const [low, high] = this.extent();
    if (range !== null) range = [Math.max(range[0], low), Math.min(range[1], high)];
    const all = range === null || range[1] - range[0] >= (high - low) * 0.999;
    if (!all && !this.indices(range).length) return;
    this.range = all ? null : range;
    this.zoomOut.hidden = all;
    this.draw();
  }

  extent() {
    const low = Math.min(...this.spec.x);
    const high = Math.max(...this.spec.x);
    const room = this.spec.kind === "bars" ? 0.5 : this.spec.kind === "points" ? (high - low) * 0.02 : 0;
    return high - low + room > 0 ? [low - room, high + room] : [low - 0.5, high + 0.5];
  }

  indices([low, high]) {
    return this.spec.x.map((_, k) => k).filter((k) => this.spec.x[k] >= low && this.spec.x[k] <= high);
  }

  /** Indices of what is in sight, from left to right. */
  visible() {
    return this.indices(this.range ?? this.extent()).sort((a, b) => this.spec.x[a] - this.spec.x[b]);
  }

  seriesShown() {
    return this.spec.series.filter((_, k) => !this.hidden.has(k));
  }

  heights() {
    if (this.spec.kind === "bars") return [0, this.spec.share ? 1 : this.tops()];
    const seen = this.visible();
    const values = this.seriesShown()
      .flatMap(({ y, low, high, reference }) => (reference || !low ? [y] : [y, low, high]))
      .flatMap((column) => seen.map((k) => column[k]))
      .filter((value) => value !== null);
    if (this.spec.from_zero) values.push(0);
    if (!values.length) return [0, 1];
    const low = values.reduce((a, b) => Math.min(a, b));
    const high = values.reduce((a, b) => Math.max(a, b));
    const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    // Values that are never negative get no axis below 0.
    const least = this.spec.from_zero && low >= 0 ? 0 : low - room;
    return [low >= 0 ? Math.max(least, 0) : least, high + room];
  }

  tops() {
    const total = (k) => this.seriesShown().reduce((sum, { y }) => sum + (y[k] ?? 0), 0);
    return Math.max(...this.visible().map(total)) || 1;
  }

  draw() {
    this.width = this.root.clientWidth || 640;
    this.height = Math.round(Math.min(Math.max(this.width * 0.5, 230), 380));
    this.stop();
    this.picture.replaceChildren();
    this.picture.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.scaleX = scale(this.range ?? this.extent(), [MARGIN.left, this.width - MARGIN.right]);
    this.scaleY = scale(this.heights(), [this.height - MARGIN.bottom, MARGIN.top]);
    this.drawAxes();
    const [width, height] = [this.width - MARGIN.left - MARGIN.right, this.height - MARGIN.top - MARGIN.bottom];
    // A nested drawing of its own cuts off what the zoom leaves outside, but not a marker's edge.
    const box = [MARGIN.left - EDGE, MARGIN.top - EDGE, width + 2 * EDGE, height + EDGE];
    const place = { x: box[0], y: box[1], width: box[2], height: box[3], viewBox: box.join(" ") };
    this.inside = svg(this.picture, "svg", place);
    const drawn = { lines: drawLines, bars: drawBars, points: drawPoints }[this.spec.kind];
    drawn(this);
    this.overlay = svg(this.picture, "g");
  }

  drawAxes() {
    const [left, right, bottom] = [MARGIN.left, this.width - MARGIN.right, this.height - MARGIN.bottom];
    const { x_name, y_name, x_whole, x_share, share } = this.spec;
    for (const { value, text } of ticks(...this.scaleY.domain, this.height / 50, { share })) {
      const y = this.scaleY(value);
      svg(this.picture, "line", { class: "grid", x1: left, x2: right, y1: y, y2: y });
      svg(this.picture, "text", { x: left - 7, y: y + 4, "text-anchor": "end" }, text);
    }
    const names = { whole: x_whole, share: x_share };
    for (const { value, text } of ticks(...this.scaleX.domain, this.width / 95, names)) {
      const x = this.scaleX(value);
      svg(this.picture, "line", { class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 4 });
      svg(this.picture, "text", { x, y: bottom + 18, "text-anchor": "middle" }, text);
    }
    svg(this.picture, "line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom });
    svg(this.picture, "text", { x: (left + right) / 2, y: this.height - 6, "text-anchor": "middle" }, x_name);
    const middle = (MARGIN.top + bottom) / 2;
    svg(this.picture, "text", { x: 14, y: middle, "text-anchor": "middle", transform: `rotate(-90 14 ${middle})` }, y_name);
  }

  /** Follow the pointer: mark out the range while dragging, else read out what is nearest. */
  move({ x, y }) {
    if (this.started !== null && Math.abs(x - this.started) > 4) {
      this.stop();
      const left = Math.max(Math.min(x, this.started), MARGIN.left);
      const right = Math.min(Math.max(x, this.started), this.width - MARGIN.right);
      const size = { width: Math.max(right - left, 0), height: this.height - MARGIN.top - MARGIN.bottom };
      svg(this.overlay, "rect", { class: "selection", x: left, y: MARGIN.top, ...size });
      return;
    }
    const away = (k) => {
      const across = Math.abs(this.scaleX(this.spec.x[k]) - x);
      if (this.spec.kind !== "points") return across;
      return Math.hypot(across, this.scaleY(this.spec.series[0].y[k] ?? Infinity) - y);
    };
    let best = null;
    for (const k of this.visible()) if (best === null || away(k) < away(best)) best = k;
    if (best !== null) this.read(best);
  }

  /** Show the values at x[k]. */
  read(k) {
    this.stop();
    this.at = k;
    const x = this.scaleX(this.spec.x[k]);
    svg(this.overlay, "line", { class: "cursor", x1: x, x2: x, y1: MARGIN.top, y2: this.height - MARGIN.bottom });
    const shown = this.seriesShown();
    if (this.spec.kind !== "bars") {
      for (const series of shown.filter(({ y }) => y[k] !== null)) {
        const dot = svg(this.overlay, "circle", { cx: x, cy: this.scaleY(series.y[k]), r: 4 });
        dot.style.fill = colourOf(series.colour);
      }
    }
    const head = this.notes?.[k] ?? `${this.spec.x_name}: ${readable(this.spec.x[k], this.spec.x_share)}`;
    html(this.readOut, "strong", {}, head);
    const table = html(this.readOut, "table");
    if (this.spec.kind === "points") addReading(table, null, this.spec.x_name, readable(this.spec.x[k]));
    // Bars are stacked upwards, so the topmost is read first.
    for (const series of this.spec.kind === "bars" ? [...shown].reverse() : shown) {
      addReading(table, series, series.name, reading(series, k, this.spec.share));
    }
    this.readOut.hidden = false;
    const room = this.canvas.clientWidth - this.readOut.offsetWidth;
    const shift = (x / this.width) * this.canvas.clientWidth;
    const beside = shift + 14 <= room ? shift + 14 : shift - this.readOut.offsetWidth - 14;
    this.readOut.style.left = `${Math.max(Math.min(beside, room), 0)}px`;
    this.readOut.style.top = `${MARGIN.top + 4}px`;
  }

  stop() {
    this.at = null;
    this.overlay?.replaceChildren();
    this.readOut.hidden = true;
    this.readOut.replaceChildren();
  }
}

function scale(domain, [start, end]) {
  const [low, high] = domain;
  const to = (value) => start + ((value - low) / (high - low)) * (end - start);
  to.invert = (position) => low + ((position - start) / (end - start)) * (high - low);
  to.domain = domain;
  return to;
}

function reading({ y, low, high }, k, share) {
  if (!low || low[k] === null || low[k] === high[k]) return readable(y[k], share);
  return `${readable(low[k], share)} – ${readable(high[k], share)}`;
}

function addReading(table, series, name, value) {
  const row = html(table, "tr");
  const head = html(row, "th");
  if (series) addSwatch(head, series);
  head.append(name);
  html(row, "td", {}, value);
}

function addSwatch(parent, { colour, dash, reference }) {
  const broken = reference ? "dashed" : dash;
  const line = broken && broken !== "solid";
  const swatch = html(parent, "span", { class: line ? `swatch ${broken}` : "swatch" });
  swatch.style.setProperty(line ? "border-color" : "background", colourOf(colour));
}

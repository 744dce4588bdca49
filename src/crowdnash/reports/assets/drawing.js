// Small helpers for drawing: elements, axis ticks, numbers as text. Text from the run's data only
// ever becomes textContent or an attribute, never markup.

// An SVG element that the parser made tells the namespace, so that no address is written here.
const SVG = (() => {
  const template = document.createElement("template");
  template.innerHTML = "<svg></svg>";
  return template.content.firstChild.namespaceURI;
})();

function add(parent, element, attributes, text) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  if (text !== undefined) element.textContent = text;
  parent?.append(element);
  return element;
}

const html = (parent, name, attributes, text) =>
  add(parent, document.createElement(name), attributes, text);
const svg = (parent, name, attributes, text) =>
  add(parent, document.createElementNS(SVG, name), attributes, text);

/** A colour of the page's palette by name, which differs by day and night, or "#rrggbb". */
const colourOf = (name) => (name.startsWith("#") ? name : `var(--${name})`);

/** A number as the read-outs and tables show it: four digits, or per cent. */
function readable(value, share = false) {
  if (value === null || !Number.isFinite(value)) return "–";
  if (share) return `${(100 * value).toFixed(1)}%`;
  if (Number.isInteger(value)) return String(value).replace("-", "−");
  const size = Math.abs(value);
  const text =
    size >= 1e6 || size < 1e-4 ? value.toExponential(2) : size < 1 ? value.toFixed(4) : Number(value.toPrecision(5)).toString();
  return text.replace(/-/g, "−");
}

/** Round values from `low` to `high`, about `count` of them, and how to write them. */
function ticks(low, high, count, { whole = false, share = false } = {}) {
  const rough = (high - low) / Math.max(count, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].find((k) => k * power >= rough * 0.999) * power;
  if (whole) step = Math.max(1, Math.round(step));
  const digits = Math.max(0, -Math.floor(Math.log10(share ? 100 * step : step) + 1e-9));
  const write = (value) =>
    share ? `${(100 * value).toFixed(digits)}%` : value.toFixed(digits).replace("-", "−");
  const values = [];
  for (let k = Math.ceil(low / step - 1e-6); k * step <= high + step * 1e-6; k++) {
    values.push({ value: k * step, text: write(Math.abs(k * step) < step * 1e-9 ? 0 : k * step) });
  }
  return values;
}

/** The path of a line, broken where a value is missing. */
function linePath(xs, ys) {
  let path = "";
  let drawing = false;
  xs.forEach((x, k) => {
    if (ys[k] === null) {
      drawing = false;
      return;
    }
    path += `${drawing ? "L" : "M"}${x.toFixed(1)} ${ys[k].toFixed(1)}`;
    drawing = true;
  });
  return path;
}

/** The path of an area between two lines that have values in the same places. */
function bandPath(xs, lows, highs) {
  const there = xs.map((_, k) => k).filter((k) => lows[k] !== null && highs[k] !== null);
  if (!there.length) return "";
  const point = (k, ys) => `${xs[k].toFixed(1)} ${ys[k].toFixed(1)}`;
  const back = [...there].reverse();
  return `M${there.map((k) => point(k, highs)).join("L")}L${back.map((k) => point(k, lows)).join("L")}Z`;
}

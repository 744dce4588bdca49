// What a chart draws inside its axes, by kind.

const DASHES = { solid: null, dashed: "7 4", dotted: "2 3", "dash-dotted": "7 3 2 3" };
const MOST_MARKERS = 60;

function positions(chart, column) {
  return column.map((value) => (value === null ? null : chart.scaleY(value)));
}

function drawLines(chart) {
  const xs = chart.spec.x.map(chart.scaleX);
  for (const { y, low, high, colour, dash, reference } of chart.seriesShown()) {
    if (low && !reference) {
      const band = svg(chart.inside, "path", {
        d: bandPath(xs, positions(chart, low), positions(chart, high)),
        "fill-opacity": 0.24,
      });
      band.style.fill = colourOf(colour);
    }
    const ys = positions(chart, y);
    const line = svg(chart.inside, "path", {
      d: linePath(xs, ys),
      fill: "none",
      "stroke-width": reference ? 1.4 : 2,
      "stroke-dasharray": DASHES[reference ? "dashed" : dash],
    });
    line.style.stroke = colourOf(colour);
    if (reference || xs.length > MOST_MARKERS) continue;
    ys.forEach((cy, k) => {
      if (cy === null) return;
      const marker = svg(chart.inside, "circle", { cx: xs[k], cy, r: 3 });
      marker.style.fill = colourOf(colour);
    });
  }
}

function drawBars(chart) {
  const width = Math.max(chart.scaleX(1) - chart.scaleX(0), 1);
  for (const k of chart.visible()) {
    let below = 0;
    for (const { y, colour } of chart.seriesShown()) {
      const above = below + (y[k] ?? 0);
      const top = chart.scaleY(above);
      const bar = svg(chart.inside, "rect", {
        x: chart.scaleX(chart.spec.x[k]) - width / 2,
        y: top,
        width: width * 0.94,
        height: Math.max(chart.scaleY(below) - top, 0),
      });
      bar.style.fill = colourOf(colour);
      below = above;
    }
  }
}

function drawPoints(chart) {
  for (const { y, low, high, colour } of chart.seriesShown()) {
    for (const k of chart.visible()) {
      if (y[k] === null) continue;
      const x = chart.scaleX(chart.spec.x[k]);
      if (low && high[k] > low[k]) {
        const range = svg(chart.inside, "line", {
          x1: x,
          x2: x,
          y1: chart.scaleY(low[k]),
          y2: chart.scaleY(high[k]),
          "stroke-opacity": 0.25,
        });
        range.style.stroke = colourOf(colour);
      }
      const point = svg(chart.inside, "circle", { cx: x, cy: chart.scaleY(y[k]), r: 2.6, "fill-opacity": 0.65 });
      point.style.fill = colourOf(colour);
    }
  }
}

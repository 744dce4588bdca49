// Puts the interactive charts in place of the pictures. A picture stays if anything goes wrong.

function replace(picture, { choice_name, charts }) {
  const place = html(null, "div");
  picture.before(place);
  try {
    addCharts(place, choice_name, charts);
    picture.hidden = true;
  } catch (error) {
    place.remove();
    console.error(error);
  }
}

function addCharts(place, choice_name, charts) {
  const panels = html(null, "div", { class: "panels" });
  const choices = [...new Set(charts.map(({ choice }) => choice))];
  let drawn = [];
  const draw = (choice) => {
    for (const chart of drawn) chart.remove();
    drawn = charts.filter((spec) => spec.choice === choice).map((spec) => new Chart(panels, spec));
  };
  if (choices.length > 1) {
    const controls = html(place, "div", { class: "controls" });
    const label = html(controls, "label", {}, choice_name);
    const select = html(label, "select");
    for (const choice of choices) html(select, "option", { value: choice }, choice);
    select.addEventListener("change", () => draw(select.value));
  }
  place.append(panels);
  draw(choices[0]);
}

(() => {
  const { figures, agents } = JSON.parse(document.getElementById("report-data").textContent);
  for (const picture of document.querySelectorAll("img[data-charts]")) {
    replace(picture, figures[picture.dataset.charts]);
  }
  const section = document.getElementById("agents");
  if (agents && section) {
    if (agents.x_names.length) addScatter(section, agents);
    new AgentTable(section, agents);
  }
})();

// The agents' gains: a table to sort, search and page through. It gets what agent_table.py writes:
// columns of equal length.

const PAGE = 50;

/** What a search means: a test of one row number; throws a message that says what is wrong. */
function parseSearch(text, columns) {
  const tests = text.trim().split(/[\s,]+(?![^[]*\])/).filter(Boolean).map((term) => {
    const parts = /^([^<>=]*)(<=|>=|<|>|=)(.*)$/.exec(term);
    if (!parts) {
      if (!/^\d+$/.test(term)) throw new Error(`“${term}” is neither an agent's number nor a condition`);
      return (k) => columns[0].values[k] === Number(term);
    }
    const [, name, sign, value] = parts;
    const column = columns.find((one) => one.name === name);
    if (!column) throw new Error(`no column is called “${name}”`);
    if (value === "" || Number.isNaN(Number(value))) throw new Error(`“${value}” is not a number`);
    const compare = {
      "<": (x, y) => x < y,
      "<=": (x, y) => x <= y,
      ">": (x, y) => x > y,
      ">=": (x, y) => x >= y,
      // What is shown is rounded, so what is typed from it must be found.
      "=": (x, y) => x === y || readable(x) === readable(y),
    }[sign];
    return (k) => compare(column.values[k], Number(value));
  });
  return (k) => tests.every((test) => test(k));
}

class AgentTable {
  constructor(section, { columns, sort }) {
    this.columns = columns;
    this.order = { column: columns.findIndex(({ name }) => name === sort), descending: true };
    this.page = 0;
    this.rows = columns[0].values.map((_, k) => k);
    this.table = section.querySelector("table");
    this.body = this.table.tBodies[0];
    const controls = html(null, "div", { class: "controls" });
    section.querySelector(".scroll").before(controls);
    this.addSearch(controls);
    this.status = html(controls, "span", { role: "status", class: "note" });
    this.back = this.addTurn(controls, "previous", -1);
    this.next = this.addTurn(controls, "next", 1);
    this.table.caption?.remove();
    this.addHeads();
    this.show();
  }

  addSearch(controls) {
    const label = html(controls, "label", {}, "Search");
    const example = `17   or   ${this.columns.at(-1).name}>0.5`;
    const hint = `An agent's number, or conditions on columns, all of which must hold: ${this.columns.map(({ name }) => name).join(", ")}`;
    this.search = html(label, "input", { type: "search", placeholder: example, title: hint, "aria-label": `Search agents. ${hint}` });
    this.search.addEventListener("input", () => {
      this.page = 0;
      this.show();
    });
  }

  addTurn(controls, text, by) {
    const button = html(controls, "button", { type: "button" }, text);
    button.addEventListener("click", () => {
      this.page += by;
      this.show();
    });
    return button;
  }

  addHeads() {
    const heads = [...this.table.tHead.rows[0].cells];
    this.heads = heads.map((head, column) => {
      const text = head.textContent;
      head.textContent = "";
      const button = html(head, "button", { type: "button", title: `sort by ${text}` }, text);
      button.addEventListener("click", () => {
        const again = this.order.column === column;
        // Agents from the first on, everything else from the largest on.
        this.order = { column, descending: again ? !this.order.descending : column > 0 };
        this.page = 0;
        this.show();
      });
      return head;
    });
  }

  matches() {
    const fits = parseSearch(this.search.value, this.columns);
    const values = this.columns[this.order.column].values;
    const sign = this.order.descending ? -1 : 1;
    return this.rows.filter(fits).sort((a, b) => sign * (values[a] - values[b]) || a - b);
  }

  show() {
    let rows = [];
    let wrong = null;
    try {
      rows = this.matches();
    } catch (error) {
      wrong = error.message;
    }
    const pages = Math.max(Math.ceil(rows.length / PAGE), 1);
    this.page = Math.min(Math.max(this.page, 0), pages - 1);
    const first = this.page * PAGE;
    const shown = rows.slice(first, first + PAGE);
    this.status.textContent =
      wrong ?? (rows.length ? `${first + 1}–${first + shown.length} of ${rows.length} agents` : "no agent is like that");
    this.search.setAttribute("aria-invalid", String(wrong !== null));
    this.back.disabled = this.page === 0;
    this.next.disabled = this.page === pages - 1;
    this.heads.forEach((head, column) => {
      const direction = this.order.descending ? "descending" : "ascending";
      head.setAttribute("aria-sort", column === this.order.column ? direction : "none");
    });
    this.body.replaceChildren(...shown.map((k) => this.row(k)));
  }

  row(k) {
    const row = html(null, "tr");
    for (const { values } of this.columns) html(row, "td", {}, readable(values[k]));
    return row;
  }
}

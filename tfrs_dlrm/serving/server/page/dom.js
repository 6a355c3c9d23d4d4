// Elements from text. What comes from a bundle is never parsed as HTML: only textContent is set.

/** Makes an element: `element("td", {className: "number"}, "0.5", child)`. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Fills a table; a cell is text, an element, or a list of such. */
export function fillTable(table, heads, rows) {
  const headRow = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map((cells) =>
    element("tr", {}, ...cells.map((cell, i) => element(i ? "td" : "th", i ? {} : { scope: "row" }, ...[cell].flat()))),
  );
  table.replaceChildren(element("thead", {}, headRow), element("tbody", {}, ...body));
}

/** Shows a text, or hides its element if there is none. */
export function say(where, text) {
  where.textContent = text ?? "";
  where.hidden = !text;
}

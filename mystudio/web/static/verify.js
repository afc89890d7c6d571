// The verdict on a file, drawn when its upload is answered.
const heads = { marked: "It is marked as synthetic", unmarked: "It carries no mark", changed: "It was changed after it was signed" };
const shares = { marked: 100, unmarked: 0, changed: 55 };

export function start() {
  document.addEventListener("verdict", ({ detail }) => {
    const place = document.getElementById("verdict");
    place.replaceChildren();
    const card = document.createElement("article");
    card.className = "card stack";
    const title = document.createElement("h2");
    title.textContent = heads[detail.verdict];
    const name = document.createElement("p");
    name.className = "soft";
    name.textContent = detail.name;
    const bar = document.createElement("progress");
    bar.max = 100; bar.value = shares[detail.verdict]; bar.setAttribute("aria-hidden", "true");
    const list = document.createElement("ul");
    list.className = "says";
    for (const { mark, statement } of detail.findings) {
      const line = document.createElement("li");
      line.textContent = `${mark[0].toUpperCase()}${mark.slice(1)}: ${statement}.`;
      list.append(line);
    }
    card.append(title, name, bar, list);
    place.append(card);
  });
}

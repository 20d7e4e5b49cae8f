"use strict";
// The gallery: filter, sort, enlarge. Without this script everything is on the page already.
const list = document.querySelector("#tiles");
if (list) {
  const tiles = [...list.children], viewer = document.querySelector("#viewer"), body = viewer.querySelector("#viewed");
  const role = () => document.querySelector("input[name=role]:checked").value;
  const verdict = document.querySelector("#verdict"), order = document.querySelector("#order"), wanted = document.querySelector("#wanted");
  const shown = () => [...list.children].filter((tile) => !tile.hidden);
  let current = null;

  function update() {
    for (const tile of tiles) {
      const roles = tile.dataset.roles.split(" ");
      tile.hidden = (role() && !roles.includes(role())) || (verdict.value && tile.dataset.verdict !== verdict.value) ||
        (wanted.value.trim() && tile.dataset.id !== wanted.value.trim());
    }
    const by = { first: (a, b) => tiles.indexOf(a) - tiles.indexOf(b), highest: (a, b) => b.dataset.rank - a.dataset.rank,
      lowest: (a, b) => a.dataset.rank - b.dataset.rank, id: (a, b) => a.dataset.id - b.dataset.id }[order.value];
    list.append(...[...tiles].sort(by));
    document.querySelector("#count").textContent = `${shown().length} of ${tiles.length} samples`;
  }

  function enlarge(tile) {
    current = tile;
    const big = document.createElement("div");
    big.className = "big";
    for (const image of tile.querySelectorAll(".tile-pictures img")) {
      const figure = document.createElement("figure"), caption = document.createElement("figcaption");
      caption.textContent = image.dataset.title;
      figure.append(image.cloneNode(), caption);
      big.append(figure);
    }
    body.replaceChildren(big, tile.querySelector(".facts").cloneNode(true));
    viewer.querySelector("h3").textContent = tile.dataset.title;
    if (!viewer.open) viewer.showModal();
  }

  function step(by) {
    const all = shown();
    enlarge(all[(all.indexOf(current) + by + all.length) % all.length]);
  }

  list.addEventListener("click", (event) => { const tile = event.target.closest(".tile-pictures"); if (tile) enlarge(tile.closest("li")); });
  viewer.addEventListener("keydown", (event) => { if (event.key === "ArrowRight") step(1); if (event.key === "ArrowLeft") step(-1); });
  viewer.addEventListener("close", () => current.querySelector(".tile-pictures").focus());
  document.querySelector("#next").addEventListener("click", () => step(1));
  document.querySelector("#previous").addEventListener("click", () => step(-1));
  document.querySelector("#close").addEventListener("click", () => viewer.close());
  document.querySelector("#filters").addEventListener("input", update);
  document.querySelector("#filters").hidden = false;
  update();
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));

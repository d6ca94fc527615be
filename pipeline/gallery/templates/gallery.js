"use strict";
// Without this script a picture shows half scan, half colour, and "Enlarge" opens its file.

document.documentElement.classList.add("scripted");

function show(range) {
  const pair = range.parentElement;
  pair.style.setProperty("--split", `${range.value}%`);
  range.setAttribute("aria-valuetext", `${range.value} % scan, ${100 - range.value} % colour`);
}

document.addEventListener("input", (event) => {
  if (event.target.matches(".compare input")) show(event.target);
});

function follow(event, pair) {
  const range = pair.querySelector("input");
  const box = pair.getBoundingClientRect();
  range.value = Math.round((100 * (event.clientX - box.left)) / box.width);
  show(range);
}

document.addEventListener("pointerdown", (event) => {
  const pair = event.target.closest(".compare");
  if (!pair || event.button !== 0) return;
  pair.querySelector("input").focus({ preventScroll: true });
  event.preventDefault();
  pair.setPointerCapture(event.pointerId);
  // A finger may be about to scroll: only a sideways move or a tap moves the slider.
  let meant = event.pointerType !== "touch";
  if (meant) follow(event, pair);
  const move = (moved) => {
    meant ||= Math.abs(moved.clientX - event.clientX) > 8;
    if (meant) follow(moved, pair);
  };
  const end = (last) => {
    if (last.type === "pointerup") follow(last, pair);
    pair.removeEventListener("pointermove", move);
    pair.removeEventListener("pointerup", end);
    pair.removeEventListener("pointercancel", end);
  };
  pair.addEventListener("pointermove", move);
  pair.addEventListener("pointerup", end);
  pair.addEventListener("pointercancel", end);
});

// The viewer shows one picture as large as the window.
const viewer = document.getElementById("viewer");
const cards = [...document.querySelectorAll(".pictures > li")].filter((card) => card.querySelector(".pair"));
let current = 0;

function enlarge(index) {
  current = index;
  const card = cards[index];
  const pair = card.querySelector(".pair").cloneNode(true);
  for (const image of pair.querySelectorAll("img")) image.loading = "eager";
  viewer.querySelector(".stage").replaceChildren(pair);
  viewer.querySelector("h2").replaceChildren(...card.querySelector("h2").cloneNode(true).childNodes);
  const words = [...card.querySelectorAll(".outcome, .facts, .detail")].map((line) => line.textContent);
  viewer.querySelector(".facts").textContent = words.join(" · ");
  viewer.querySelector("[value=previous]").disabled = index === 0;
  viewer.querySelector("[value=next]").disabled = index === cards.length - 1;
  if (!viewer.open) viewer.showModal();
  const range = pair.querySelector("input");
  if (range) {
    show(range);
    range.focus();
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest(".enlarge");
  const plain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
  if (link && plain && viewer.showModal) {
    event.preventDefault();
    enlarge(cards.indexOf(link.closest("li")));
  }
});

viewer.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.value === "close") viewer.close();
  else enlarge(current + (button.value === "next" ? 1 : -1));
});

viewer.addEventListener("close", () => {
  if (viewer.open) return; // reopened before this event arrived
  viewer.querySelector(".stage").replaceChildren();
  cards[current].querySelector(".enlarge").focus();
});

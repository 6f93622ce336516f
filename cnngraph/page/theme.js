"use strict";
const $ = (id) => document.getElementById(id);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const paint = () => {
  const theme = document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  const svg = document.querySelector(".sheet svg");
  if (svg) { svg.classList.toggle("dark", theme === "dark"); svg.classList.toggle("light", theme !== "dark"); }
  return theme;
};
$("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = paint() === "dark" ? "light" : "dark";
  paint();
});
dark.addEventListener("change", paint);
window.addEventListener("beforeprint", () => { document.documentElement.dataset.theme = "light"; paint(); });
paint();

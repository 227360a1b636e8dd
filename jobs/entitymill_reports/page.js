"use strict";
const form = document.getElementById("filter");
if (form) {
  const sentences = Array.from(document.querySelectorAll("#sentences .sentence"));
  const filter = () => {
    const chosen = new FormData(form);
    const labels = new Set(chosen.getAll("label"));
    const sample = chosen.get("sample");
    const number = (name, fallback) => (chosen.get(name) === "" ? fallback : Number(chosen.get(name)));
    const from = number("from", 0), to = number("to", 1);
    let shown = 0;
    for (const sentence of sentences) {
      let some = false;
      for (const mark of sentence.querySelectorAll("mark")) {
        const confidence = Number(mark.dataset.confidence);
        const matches = labels.has(mark.dataset.label) && from <= confidence && confidence <= to;
        mark.classList.toggle("off", !matches);
        // If a sample is selected, only its mentions count, not other mentions in the same sentence.
        some ||= matches && (!sample || mark.classList.contains("sampled"));
      }
      sentence.hidden = !some || Boolean(sample && !sentence.dataset.samples.split(" ").includes(sample));
      shown += !sentence.hidden;
    }
    document.getElementById("count").textContent = `${shown} of ${sentences.length} sentences`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
}

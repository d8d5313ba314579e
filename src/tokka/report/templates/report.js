// Language switch, copy buttons and the question browser. Every text of a document, a question or
// a model enters the page through textContent: nothing that was examined can become markup.
"use strict";
(() => {
  const root = document.documentElement;
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("data").textContent);
  const texts = JSON.parse(find("texts").textContent);
  const filters = find("filters");
  const PAGE = 25;
  const RIGHT = 0.5;
  let limit = PAGE;
  root.classList.add("js");

  const say = (key, values = {}) =>
    texts[root.lang][key].replace(/\{(\w+)\}/g, (_, name) => String(values[name]));

  const make = (tag, className, ...children) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children.filter((child) => child !== null));
    return element;
  };

  // Offsets count code points, as Python does; JavaScript strings count UTF-16 units.
  const highlighted = (text, spans) => {
    const characters = Array.from(text);
    const marked = new Uint8Array(characters.length);
    for (const [start, end] of spans) marked.fill(1, Math.max(0, start), Math.max(0, end));
    const parts = [];
    for (let from = 0; from < characters.length; ) {
      let to = from;
      while (to < characters.length && marked[to] === marked[from]) to += 1;
      const piece = characters.slice(from, to).join("");
      parts.push(marked[from] ? make("mark", "", piece) : piece);
      from = to;
    }
    return parts;
  };

  // ---- what an answer was worth
  const outcome = (answer) => {
    if (!answer) return "missing";
    if (answer.status !== "scored") return answer.status;
    return answer.value >= RIGHT ? "right" : "wrong";
  };
  const SIGNS = { wrong: "×", refused: "–", abstained: "–", error: "!", waiting: "…", missing: "·" };
  const signOf = (kind) => (kind === "right" ? (root.lang === "ja" ? "○" : "✓") : SIGNS[kind]);
  const tone = (kind) => (kind === "right" || kind === "wrong" ? kind : "other");
  const worth = (answer) => {
    const kind = outcome(answer);
    const word = say(`js_${kind}`);
    const partial = answer && answer.status === "scored" && answer.value > 0 && answer.value < 1;
    return partial ? `${word} (${say("js_scored", { value: answer.value.toFixed(2) })})` : word;
  };
  const sign = (answer) => {
    const kind = outcome(answer);
    const element = make("span", `sign ${tone(kind)}`, signOf(kind));
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", worth(answer));
    return element;
  };

  // ---- one answer
  const shares = (answer, normalisation) => {
    const values = answer.options.map((value, i) =>
      normalisation === "sum" || !answer.lengths[i] ? value : value / answer.lengths[i]);
    const top = Math.max(...values);
    const weights = values.map((value) => Math.exp(value - top));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return weights.map((weight) => weight / total);
  };

  const optionTable = (exam, question, answer) => {
    const normalisation = say(`normalisation_${exam.normalisation}`);
    const table = make("table", "options", make("caption", "", `${say("js_options")} — ${say("js_options_note", { normalisation })}`));
    shares(answer, exam.normalisation).forEach((share, i) => {
      const bar = make("i", "");
      bar.style.width = `${(100 * share).toFixed(1)}%`;
      const row = make("tr", "", make("td", "", question.choices[i] ?? String(i + 1)),
        make("td", "amount", bar), make("td", "number", answer.options[i].toFixed(2).replace("-", "−")));
      row.classList.toggle("chosen", answer.choice === i);
      row.classList.toggle("keyed", question.key !== null && question.key.choice === i);
      table.append(row);
    });
    return table;
  };

  const place = (page, start, end) =>
    (page === null ? "" : `${say("js_page", { page })}, `) + say("js_span", { start, end });

  const citationList = (answer, passages) => {
    const list = make("ul", "cites");
    for (const citation of answer.citations) {
      const passage = passages.get(citation.passage);
      if (!passage) continue;
      list.append(make("li", "", say("js_citation", {
        number: citation.passage,
        title: passage.title,
        place: place(passage.page, citation.start, citation.end),
        support: citation.support.toFixed(2),
      })));
    }
    return list.children.length ? make("div", "", make("b", "facts-line", say("js_citations")), list) : null;
  };

  const passageBlock = (question, answer, number, passage, score) => {
    const length = Array.from(passage.text).length;
    const spans = answer.citations.filter((citation) => citation.passage === number)
      .map((citation) => [citation.start - passage.start, citation.end - passage.start]);
    const gold = question.documents.includes(passage.document);
    const facts = [place(passage.page, passage.start, passage.end), passage.document,
      say("js_score", { score }), gold ? say("js_gold") : ""].filter(Boolean).join(" · ");
    const beyond = spans.some(([, end]) => end > length);
    const cut = passage.length > length
      ? say("js_shortened", { n: length }) + (beyond ? say("js_beyond") : "") : "";
    return make("div", gold ? "passage gold" : "passage",
      make("b", "", `[${number}] ${passage.title}`), make("small", "", facts),
      make("p", "", ...highlighted(passage.text, spans), passage.length > length ? "…" : ""),
      cut ? make("small", "", cut) : null);
  };

  const answerBlock = (exam, question, arm) => {
    const answer = question.answers[arm];
    const kind = outcome(answer);
    const head = make("h4", "", arm, make("span", `sign ${tone(kind)}`, `${signOf(kind)} ${worth(answer)}`));
    if (!answer) return make("section", "said", head);
    const passages = new Map(answer.passages.map(([number, index]) => [number, data.passages[index]]));
    const spans = answer.citations.map((citation) => [citation.from, citation.to]);
    const shortened = answer.length > Array.from(answer.text).length ? "…" : "";
    const block = make("section", "said", head,
      make("blockquote", "", ...(answer.text ? highlighted(answer.text, spans) : [say("js_no_answer")]), shortened));
    if (answer.explanation) block.append(make("p", "facts-line", answer.explanation));
    if (answer.options.length) block.append(optionTable(exam, question, answer));
    const cites = citationList(answer, passages);
    if (cites) block.append(cites);
    if (answer.passages.length) {
      const details = make("details", "", make("summary", "", say("js_passages", { n: answer.passages.length })));
      for (const [number, index, score] of answer.passages) {
        details.append(passageBlock(question, answer, number, data.passages[index], score));
      }
      block.append(details);
    }
    const facts = [say("js_facts", { tokens_in: answer.tokens[0], tokens_out: answer.tokens[1], seconds: answer.seconds, hash: answer.hash })];
    if (answer.scorer) facts.push(say("js_scorer", { scorer: answer.scorer }));
    if (answer.confidence !== null) facts.push(say("js_confidence", { value: answer.confidence.toFixed(2) }));
    if (answer.truncated) facts.push(say("js_prompt_cut"));
    block.append(make("p", "facts-line", facts.join(" · ")));
    return block;
  };

  // ---- one question
  const keyBlock = (question) => {
    const key = question.key;
    if (!key) return null;
    const texts = key.unanswerable ? say("js_unanswerable") : key.targets.join(" / ");
    const right = key.choice === null ? texts : question.choices[key.choice];
    const unit = key.unit && !right.endsWith(key.unit) ? ` ${key.unit}` : "";
    const tolerance = key.tolerance ? ` (${say("js_tolerance", { value: key.tolerance })})` : "";
    const block = make("div", "key", make("p", "", make("b", "", `${say("js_key")}: `), right + unit + tolerance));
    if (key.points.length) block.append(make("p", "", `${say("js_key_points")}: ${key.points.join(" / ")}`));
    if (key.prohibited.length) block.append(make("p", "", `${say("js_key_prohibited")}: ${key.prohibited.join(" / ")}`));
    if (question.documents.length) block.append(make("small", "", `${say("js_documents")}: ${question.documents.join(", ")}`));
    return block;
  };

  const asked = (question) => question.messages[question.messages.length - 1][1];

  const armsFirst = (exam) => {
    const chosen = filters.elements.arm.value;
    return exam.arms.includes(chosen) ? [chosen, ...exam.arms.filter((arm) => arm !== chosen)] : exam.arms;
  };

  const inside = (exam, question) => {
    const block = make("div", "inside");
    for (const [role, content] of question.messages.slice(0, -1)) {
      block.append(make("p", "turn", make("b", "", `${say(`role_${role}`)}: `), content));
    }
    if (question.choices.length) {
      block.append(make("ol", "", ...question.choices.map((choice) => make("li", "", choice))));
    }
    block.append(...[keyBlock(question)].filter(Boolean),
      make("div", "said-by", ...armsFirst(exam).map((arm) => answerBlock(exam, question, arm))));
    return block;
  };

  const questionRow = ([exam, question]) => {
    const about = [exam.name, say(`form_${question.form}`), question.topic, question.id,
      question.cluster ? say("js_cluster", { cluster: question.cluster }) : ""].filter(Boolean).join(" · ");
    const marks = make("span", "marks", ...exam.arms.map((arm) => make("span", "", sign(question.answers[arm]), arm)));
    const row = make("details", "question", make("summary", "",
      make("span", "asked", asked(question)), make("span", "about", about), marks));
    row.addEventListener("toggle", () => {
      if (row.open && row.children.length === 1) row.append(inside(exam, question));
    });
    row.dataset.id = `${exam.name}/${question.id}`;
    return row;
  };

  // ---- filters
  const everything = data.exams.flatMap((exam) => exam.questions.map((question) => [exam, question]));
  const unique = (values) => [...new Set(values)].filter(Boolean);
  const RESULTS = ["any", "right", "wrong", "refused", "error", "won", "lost"];

  const fill = (name, values, first) => {
    const select = filters.elements[name];
    const before = select.value;
    select.replaceChildren(...(first === null ? [] : [new Option(first, "")]), ...values.map(([value, label]) => new Option(label, value)));
    if ([...select.options].some((option) => option.value === before)) select.value = before;
  };

  const fillFilters = () => {
    const chosen = filters.elements.exam.value;
    const exams = data.exams.filter((exam) => !chosen || exam.name === chosen);
    const questions = exams.flatMap((exam) => exam.questions);
    fill("exam", data.exams.map((exam) => [exam.name, `${exam.name} (${say(`role_${exam.role}`)})`]), say("filter_all"));
    fill("topic", unique(questions.map((question) => question.topic)).map((topic) => [topic, topic]), say("filter_all"));
    fill("form", unique(questions.map((question) => question.form)).map((form) => [form, say(`form_${form}`)]), say("filter_all"));
    fill("arm", unique(data.exams.flatMap((exam) => exam.arms)).map((arm) => [arm, arm]), say("filter_arm_any"));
    fill("result", RESULTS.map((result) => [result, say(`result_${result}`)]), null);
  };

  const answered = (question, arm, result) => {
    const kind = outcome(question.answers[arm]);
    const control = outcome(question.answers[data.control]);
    if (result === "won") return kind === "right" && control === "wrong";
    if (result === "lost") return kind === "wrong" && control === "right";
    if (result === "refused") return kind === "refused" || kind === "abstained";
    return kind === result;
  };

  const fold = (text) => text.normalize("NFKC").toLowerCase();
  const searched = new Map(everything.map(([, question]) => [question, fold([
    question.id, question.topic, ...question.messages.map(([, content]) => content), ...question.choices,
    ...(question.key ? question.key.targets : []),
    ...Object.values(question.answers).map((answer) => (answer ? answer.text : "")),
  ].join("\n"))]));

  const matching = () => {
    const { exam, topic, form, arm, result, search } = Object.fromEntries(new FormData(filters));
    const words = fold(search).split(/\s+/).filter(Boolean);
    return everything.filter(([sat, question]) =>
      (!exam || sat.name === exam) && (!topic || question.topic === topic) && (!form || question.form === form) &&
      (result === "any" || (arm ? [arm] : sat.arms).some((each) => answered(question, each, result))) &&
      words.every((word) => searched.get(question).includes(word)));
  };

  const show = () => {
    const open = new Set([...document.querySelectorAll(".question[open]")].map((row) => row.dataset.id));
    const found = matching();
    const rows = found.slice(0, limit).map(questionRow);
    find("questions").replaceChildren(...rows);
    for (const row of rows) row.open = open.has(row.dataset.id);
    find("shown").textContent = found.length
      ? say("js_count", { shown: found.length, total: everything.length }) : say("js_none");
    find("more").hidden = found.length <= limit;
    find("more").textContent = say("js_more", { n: Math.min(PAGE, found.length - limit) });
  };

  const filtered = () => {
    limit = PAGE;
    fillFilters();
    show();
  };
  filters.addEventListener("input", filtered);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(filtered));
  find("more").addEventListener("click", () => {
    limit += PAGE;
    show();
  });

  // ---- language
  const speak = (language) => {
    root.lang = language;
    document.title = document.querySelector("title").dataset[language];
    for (const button of document.querySelectorAll("[data-language]")) {
      button.setAttribute("aria-pressed", String(button.dataset.language === language));
    }
    fillFilters();
    show();
  };
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => speak(button.dataset.language));
  }

  // ---- copying
  const select = (element) => {
    const range = document.createRange();
    range.selectNodeContents(element);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  };
  const copy = async (source) => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      return true;
    } catch {
      select(source);
      return document.execCommand("copy");
    }
  };
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const done = await copy(find(button.dataset.copy));
      find("copy-status").textContent = say(done ? "js_copied" : "js_copy_failed");
      button.classList.toggle("done", done);
    });
  }

  // ---- paper: figures are printed with their numbers
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details.data, details.more")) details.open = true;
  });

  speak(root.lang);
})();

/* One question, and what each row answered to it, side by side. */

function answersOf(samples, i, item) {
  const { index, a, b, both } = samples;
  const order = [a, b, ...index.rows].filter((label, at, all) => all.indexOf(label) === at);
  const shown = both ? order.slice(0, 2) : order;
  const asked = item.answers[index.rows.indexOf(a)]?.prompt ?? 0;
  return [
    el("h3", {}, `question ${index.ids[i]}`),
    longText(item.prompts[asked], 1500),
    el("p", { class: "target" }, el("span", { class: "name" }, "expected"), el("bdi", {}, longText(item.target, 400))),
    el("div", { class: "answers" }, shown.map((label) => card(samples, i, item, label, asked))),
  ];
}

function card(samples, i, item, label, asked) {
  const answer = item.answers[samples.index.rows.indexOf(label)];
  const judged = verdict(samples.column, samples.values(label)[i]);
  const row = board().rows.find((r) => r.label === label);
  const who = [label === samples.a && "A", label === samples.b && "B"].filter(Boolean).join(" ");
  const told = judged.mark === judged.told ? judged.told : `${judged.mark} ${judged.told}`;
  const node = el("section", { class: `answer ${judged.kind}`, "aria-label": visible(label) },
    el("header", {}, who && el("span", { class: "who" }, who),
      el("bdi", { class: "label" }, visible(label), row?.collapsed.length > 0 && "*"),
      el("span", { class: `verdict ${judged.kind}` }, answer ? told : "not asked")));
  if (answer) node.append(...answerBody(answer, item, asked));
  return node;
}

function answerBody(answer, item, asked) {
  const prompt = item.prompts[answer.prompt];
  const parts = [];
  if (answer.prompt !== asked) {
    parts.push(el("details", { class: "fold" }, el("summary", {}, "asked in other words"), longText(prompt, 1500)));
  }
  if (answer.choices) parts.push(choicesOf(answer.choices, item.target));
  else if (answer.loglikelihood) parts.push(el("p", {}, `log-likelihood ${answer.loglikelihood}`));
  const texts = answer.texts ?? [];
  texts.forEach((text, at) => {
    if (texts.length > 1) parts.push(el("h4", {}, `response ${at + 1} of ${texts.length}`));
    parts.push(...responseOf(text, prompt));
  });
  for (const [part, words] of answer.judged ?? []) {
    parts.push(el("details", { class: "fold" }, el("summary", {}, `judge on the ${part}`), longText(words, 800)));
  }
  const facts = [answer.tokens != null && `${answer.tokens} tokens`,
    answer.finish && `ended: ${answer.finish}`, ...(answer.flags ?? [])].filter(Boolean);
  if (facts.length) parts.push(el("p", { class: "facts" }, visible(facts.join(" · "))));
  return parts;
}

function responseOf(text, prompt) {
  const [thinking, answer, open] = splitThinking(text, prompt);
  const parts = [];
  if (thinking) {
    const title = `thinking, ${thinking.length.toLocaleString("en")} characters${open ? ", never ended" : ""}`;
    const node = el("details", { class: "thinking" }, el("summary", {}, title));
    node.addEventListener("toggle", () => node.children.length < 2 && node.append(longText(thinking)));
    parts.push(node);
  }
  const said = answer.replace(/^[ \t\r\n]+|[ \t\r\n]+$/g, "");
  if (!open) parts.push(said ? longText(said) : el("p", { class: "empty" }, "(no answer)"));
  return parts;
}

/* The choices with their log-likelihoods; the likeliest is what the model chose. */
function choicesOf(choices, target) {
  const top = Math.max(...choices.map(([, logprob]) => logprob));
  return el("ol", { class: "choices", start: "0" }, choices.map(([text, logprob], at) => el("li",
    { class: logprob === top ? "chosen" : null }, longText(text, 300),
    el("span", { class: "facts" }, Number(logprob).toFixed(2), logprob === top && " · chosen",
      String(at) === target && " · expected"))));
}

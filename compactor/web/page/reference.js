/** The reference of the API, drawn from its OpenAPI document, with a form to try each path. */

import { get, make, setText } from "./format.js";

/** @typedef {Record<string, any>} Json */

/** @param {Json} document @param {Json} found @returns {Json} */
function resolve(document, found) {
  let one = found;
  while (one?.$ref) one = document.components.schemas[String(one.$ref).split("/").pop() ?? ""];
  return one ?? {};
}

/** A schema in words. @param {Json} document @param {Json} schema @returns {string} */
function describe(document, schema) {
  if (schema.$ref) return String(schema.$ref).split("/").pop() ?? "";
  if (schema.oneOf || schema.anyOf) return (schema.oneOf ?? schema.anyOf).map((/** @type {Json} */ one) => describe(document, one)).join(" or ");
  if (schema.enum) return schema.enum.map((/** @type {any} */ one) => JSON.stringify(one)).join(", ");
  if (schema.type === "array") return `list of ${describe(document, schema.items ?? {})}`;
  return [Array.isArray(schema.type) ? schema.type.join(" or ") : schema.type, schema.format].filter(Boolean).join(", ");
}

/** @param {Json} document @param {string} path @param {string} method @param {Json} operation */
function drawOperation(document, path, method, operation) {
  const place = make("details", "panel operation");
  const summary = make("summary");
  summary.append(make("span", `method ${method}`, method), make("code", "", path), make("span", "dim", operation.summary ?? ""));
  place.append(summary, make("p", "", operation.description ?? ""));
  const form = make("form");
  for (const parameter of operation.parameters ?? []) {
    const label = make("label", "", parameter.name + (parameter.required ? " *" : ""));
    const input = make("input");
    input.name = parameter.name;
    input.dataset.in = parameter.in;
    input.id = `${operation.operationId}-${parameter.name}`;
    input.required = Boolean(parameter.required);
    input.placeholder = describe(document, parameter.schema ?? {});
    label.htmlFor = input.id;
    form.append(label, input, make("span", "dim", parameter.description ?? ""));
  }
  const button = make("button", method === "DELETE" ? "danger" : "", "Try it");
  form.append(button);
  const answer = make("pre");
  answer.hidden = true;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void tryIt(path, method, form, answer);
  });
  place.append(form, answer, make("h3", "", "Answers"));
  const list = make("ul");
  for (const [status, response] of Object.entries(operation.responses ?? {})) {
    const [type, content] = Object.entries(response.content ?? {})[0] ?? ["", {}];
    list.append(make("li", "", [status, response.description, type, content?.schema ? describe(document, content.schema) : ""].filter(Boolean).join(" · ")));
  }
  place.append(list);
  const success = Object.entries(operation.responses ?? {}).find(([status]) => status.startsWith("2"))?.[1];
  const schema = resolve(document, success?.content?.["application/json"]?.schema ?? {});
  if (schema.properties) {
    if (schema.description) place.append(make("p", "dim", schema.description));
    const fields = make("ul");
    for (const [name, one] of Object.entries(schema.properties)) fields.append(make("li", "", `${name}: ${describe(document, one)}`));
    place.append(make("h3", "", "Fields"), fields);
  }
  return place;
}

/** @param {string} path @param {string} method @param {HTMLFormElement} form @param {HTMLElement} answer */
async function tryIt(path, method, form, answer) {
  const query = new URLSearchParams();
  const headers = new Headers();
  const key = get("key", HTMLInputElement).value.trim();
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let address = path;
  for (const input of form.querySelectorAll("input")) {
    if (input.dataset.in === "path") address = address.replace(`{${input.name}}`, encodeURIComponent(input.value));
    else if (input.value && input.dataset.in === "query") query.set(input.name, input.value);
    else if (input.value && input.dataset.in === "header") headers.set(input.name, input.value);
  }
  answer.hidden = false;
  setText(answer, "…");
  try {
    const found = await fetch(address + (query.size ? `?${query}` : ""), { method, headers, cache: "no-store", credentials: "omit" });
    const type = found.headers.get("content-type") ?? "";
    let text = "";
    if (type.includes("event-stream") && found.body) {
      const reader = found.body.pipeThrough(new TextDecoderStream()).getReader();
      text = (await reader.read()).value ?? "";
      await reader.cancel();
    } else {
      text = await found.text();
      if (type.includes("json") && !type.includes("jsonl")) text = JSON.stringify(JSON.parse(text), null, 1);
    }
    setText(answer, `${found.status} ${type}\n\n${text.slice(0, 20_000)}`);
  } catch (error) {
    setText(answer, String(error));
  }
}

get("key-form", HTMLFormElement).addEventListener("submit", (event) => event.preventDefault());
const document_ = /** @type {Json} */ (await (await fetch("/api/openapi.json")).json());
setText(get("about", HTMLElement), document_.info.description);
setText(get("version", HTMLElement), document_.info.version);
for (const [path, methods] of Object.entries(document_.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    if (operation?.responses) get("operations", HTMLElement).append(drawOperation(document_, path, method.toUpperCase(), operation));
  }
}

"""``GET /docs``: the OpenAPI document as a page that loads nothing from elsewhere."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from starlette.responses import HTMLResponse

router = APIRouter(tags=["operations"])

_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'",
    "x-content-type-options": "nosniff",
}
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>ragkube API</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
summary{cursor:pointer;padding:.4rem 0}b{display:inline-block;min-width:4.5rem}code,pre,textarea{font-family:ui-monospace,monospace}
pre,textarea{background:#f4f4f4;padding:.6rem;overflow:auto;width:100%;box-sizing:border-box;border:1px solid #ddd}
details details{margin-left:1.5rem}input{width:100%;padding:.4rem;box-sizing:border-box}button{padding:.4rem 1rem;margin:.5rem 0}
</style></head><body>
<h1>ragkube API</h1><p id="about"></p>
<h2>Ask</h2>
<label>API key, where one is asked for <input id="key" type="password" autocomplete="off"></label>
<label>Body <textarea id="body" rows="3">{"question": "What is this about?"}</textarea></label>
<button id="ask">POST /v1/query</button><pre id="answer" hidden></pre>
<h2>Operations</h2><div id="operations"></div>
<h2>Bodies</h2><div id="schemas"></div>
<p><a href="/openapi.json">openapi.json</a></p>
<script>
const at = id => document.getElementById(id);
const make = (tag, text, ...children) => {
  const node = document.createElement(tag); node.textContent = text; node.append(...children); return node;
};
const fold = (title, ...children) => make("details", "", make("summary", "", ...title), ...children);
const json = value => make("pre", JSON.stringify(value, null, 2));
const operation = (method, path, op) => fold(
  [make("b", method.toUpperCase()), make("code", path), make("span", " " + (op.summary || ""))],
  make("p", op.description || ""),
  ...(op.parameters ? [fold([make("span", "Parameters")], json(op.parameters))] : []),
  ...(op.requestBody ? [fold([make("span", "Request body")], json(op.requestBody))] : []),
  fold([make("span", "Responses")], json(op.responses)));
fetch("/openapi.json").then(r => r.json()).then(api => {
  at("about").textContent = api.info.description + " Version " + api.info.version + ".";
  for (const [path, item] of Object.entries(api.paths))
    for (const [method, op] of Object.entries(item)) at("operations").append(operation(method, path, op));
  for (const [name, schema] of Object.entries(api.components.schemas))
    at("schemas").append(fold([make("code", name)], json(schema)));
});
at("ask").onclick = async () => {
  const headers = {"content-type": "application/json"};
  if (at("key").value) headers.authorization = "Bearer " + at("key").value;
  const response = await fetch("/v1/query", {method: "POST", headers, body: at("body").value});
  at("answer").hidden = false;
  at("answer").textContent = response.status + "\\n" + JSON.stringify(await response.json(), null, 2);
};
</script></body></html>
"""


@router.get("/docs", summary="This API as a page", response_class=HTMLResponse, include_in_schema=False)
async def docs() -> HTMLResponse:
    """Operations, bodies, and a form to ask."""
    return HTMLResponse(_PAGE, headers=_HEADERS)

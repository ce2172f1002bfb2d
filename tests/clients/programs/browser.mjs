// `fetch` as a browser does it for a page of another origin: it asks first (preflight), sends its
// origin, and hides from the page what the server does not expose.

const ORIGIN = "http://page.example";
const SAFE_HEADERS = new Set(["accept", "accept-language", "content-language"]);
const SAFE_TYPES = /^(application\/x-www-form-urlencoded|multipart\/form-data|text\/plain)\b/;
const SAFE_METHODS = new Set(["GET", "HEAD", "POST"]);
const ALWAYS_READABLE = new Set([
  "cache-control", "content-language", "content-length", "content-type", "expires",
  "last-modified", "pragma",
]);

/** fetch with the rules of CORS. Rejects with TypeError as a browser does, but says why. */
export async function browserFetch(input, init = {}) {
  const request = new Request(input, init);
  const asked = [...request.headers].filter(([name, value]) => !safe(name, value)).map(([n]) => n);
  if (asked.length > 0 || !SAFE_METHODS.has(request.method)) await preflight(request, asked);
  request.headers.set("origin", ORIGIN);
  request.headers.set("sec-fetch-mode", "cors");
  request.headers.set("sec-fetch-site", "cross-site");
  const response = await fetch(request);
  allowed(response);
  const exposed = names(response.headers.get("access-control-expose-headers"));
  const headers = new Headers(
    [...response.headers].filter(([name]) => ALWAYS_READABLE.has(name) || exposed.has(name)),
  );
  return new Response(response.body, { status: response.status, headers });
}

function safe(name, value) {
  return SAFE_HEADERS.has(name) || (name === "content-type" && SAFE_TYPES.test(value));
}

async function preflight(request, asked) {
  const response = await fetch(request.url, {
    method: "OPTIONS",
    headers: {
      origin: ORIGIN,
      "access-control-request-method": request.method,
      "access-control-request-headers": asked.sort().join(","),
    },
  });
  if (!response.ok) throw new TypeError(`the preflight had status ${response.status}`);
  allowed(response);
  const headers = names(response.headers.get("access-control-allow-headers"));
  const refused = asked.filter((name) => !(headers.has(name) || (headers.has("*") && name !== "authorization")));
  if (refused.length > 0) throw new TypeError(`the preflight does not allow ${refused.join(", ")}`);
  const methods = names(response.headers.get("access-control-allow-methods"));
  if (!SAFE_METHODS.has(request.method) && !methods.has(request.method.toLowerCase()))
    throw new TypeError(`the preflight does not allow ${request.method}`);
}

function allowed(response) {
  const origin = response.headers.get("access-control-allow-origin");
  if (origin !== "*" && origin !== ORIGIN) throw new TypeError(`allowed is ${origin}`);
}

function names(header) {
  return new Set((header ?? "").split(",").map((name) => name.trim().toLowerCase()));
}

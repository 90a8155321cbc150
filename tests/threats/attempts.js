// What a page can try to make a browser send. Each attempt goes to a path of its own; what it learns, it returns.
async ([base, prefix]) => {
  const to = (name) => `${base}/${prefix}/${name}`;
  const add = (tag, attributes, parent = document.body) => {
    const node = Object.assign(document.createElement(tag), attributes);
    parent.append(node);
    return node;
  };
  const learned = [];
  const attempt = async (name, options, path = null) => {
    try {
      const answer = await fetch(path ?? to(name), options);
      const text = await answer.text();
      if (answer.type !== "opaque") learned.push(`${name}: ${answer.status} ${text}`);
    } catch {}
  };

  for (const name of ["image", "script", "stylesheet", "preload", "prefetch", "modulepreload"]) {
    if (name === "image") add("img", { src: to(name) });
    else if (name === "script") add("script", { src: to(name), onload: () => learned.push(name) });
    else add("link", { rel: name, href: to(name), as: name === "preload" ? "script" : "" });
  }
  add("style", { textContent: `body { background: url("${to("background")}"); font-family: stolen }
    @font-face { font-family: stolen; src: url("${to("font")}") }` });
  add("p", { textContent: "a text, for its font" });
  add("video", { src: to("video"), preload: "auto" });
  add("audio", { src: to("audio"), preload: "auto" });
  for (const name of ["iframe", "embed"]) add(name, { src: to(name) });
  add("object", { data: to("object") });
  add("iframe", { src: `${base}/-/`, name: "ours" });

  for (const enctype of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]) {
    for (const [name, action] of [["form", null], ["logout", `${base}/-/logout/me?${prefix}`]]) {
      const called = `${name}-${enctype.split("/")[1]}`;
      add("iframe", { name: called });
      const form = add("form", { method: "post", enctype, action: action ?? to(called), target: called });
      add("input", { name: "csrf", value: "x" }, form);
      form.submit();
    }
  }
  add("iframe", { name: "form-get" });
  add("form", { action: to("form-get"), target: "form-get" }).submit();

  const rules = { prefetch: [{ source: "list", urls: [to("speculation")], eagerness: "immediate" }] };
  add("script", { type: "speculationrules", textContent: JSON.stringify(rules) });
  add("iframe", { name: "pinged" });
  add("a", { href: "about:blank", target: "pinged", ping: to("ping") }).click();
  open(to("popup"));

  navigator.sendBeacon(to("beacon"), "text");
  new EventSource(to("event-source"));
  new WebSocket(to("web-socket").replace("http", "ws")).onopen = () => learned.push("web-socket");
  const request = new XMLHttpRequest();
  request.open("POST", to("xhr"));
  request.send("text");

  await Promise.all([
    attempt("fetch"),
    attempt("fetch-no-cors", { mode: "no-cors" }),
    attempt("fetch-no-cors-post", { mode: "no-cors", method: "POST", body: "text" }),
    attempt("fetch-post", { method: "POST", body: "text" }),
    attempt("fetch-json", { method: "POST", body: "{}", headers: { "Content-Type": "application/json" } }),
    attempt("fetch-put", { method: "PUT", body: "text" }),
    attempt("fetch-header", { headers: { Authorization: "Bearer x" } }),
    attempt("fetch-credentials", { credentials: "include" }),
    attempt("fetch-no-referrer", { referrerPolicy: "no-referrer" }),
    attempt("fetch-keepalive", { method: "POST", body: "text", keepalive: true }),
    attempt("status", {}, `${base}/-/status?${prefix}`),
    attempt("page", { credentials: "include" }, `${base}/-/?${prefix}`),
  ]);
  return learned;
}

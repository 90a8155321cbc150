// npm's http-proxy with a keep-alive agent and the token added, WebSockets included.
const http = require("node:http");
const { createProxyServer } = require("http-proxy");

const [port, upstream, token] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity });
const headers = { authorization: `Bearer ${token}` };
const calls = createProxyServer({ target: upstream, agent, headers });
const upgrades = createProxyServer({ target: upstream, headers });
for (const proxy of [calls, upgrades])
  proxy.on("error", (error, request, response) => response.destroy(error));
http
  .createServer((request, response) => calls.web(request, response))
  .on("upgrade", (request, socket, head) => upgrades.ws(request, socket, head))
  .listen(Number(port), "127.0.0.1");

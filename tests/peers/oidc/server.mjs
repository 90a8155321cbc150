// A real authorization server for the tests: oidc-provider with a store in memory, and a control side.
//
//   node server.mjs '{"access_token_s": 10}'
//
// Prints one line {"issuer", "control"} when both ports answer, and ends when its stdin closes, so that
// no test, however it dies, leaves it behind.

import { createHash, generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';

import Provider from 'oidc-provider';

const settings = {
  port: 0,
  access_token_s: 600,
  refresh_token_s: 86_400,
  device_code_s: 600,
  ...JSON.parse(process.argv[2] ?? '{}'),
};
const HOST = '127.0.0.1';
const GRANT_S = 30 * 86_400;
const SCOPES = ['openid', 'offline_access', 'api:read', 'api:write'];

// ---------------------------------------------------------------- the provider

// The provider's own memory store forgets after a thousand entries. A spent refresh token must be
// remembered: presented again it has to end the grant, not to be merely unknown.
const store = new Map();

class Adapter {
  constructor(model) {
    this.model = model;
  }

  key(id) {
    return `${this.model}:${id}`;
  }

  async upsert(id, payload) {
    store.set(this.key(id), payload);
  }

  async find(id) {
    return store.get(this.key(id));
  }

  async findBy(name, value) {
    for (const [key, payload] of store) {
      if (key.startsWith(`${this.model}:`) && payload[name] === value) return payload;
    }
    return undefined;
  }

  async findByUid(uid) {
    return this.findBy('uid', uid);
  }

  async findByUserCode(userCode) {
    return this.findBy('userCode', userCode);
  }

  async consume(id) {
    store.get(this.key(id)).consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    store.delete(this.key(id));
  }

  async revokeByGrantId(grantId) {
    for (const [key, payload] of store) {
      if (key.startsWith(`${this.model}:`) && payload.grantId === grantId) store.delete(key);
    }
  }
}

function buildClient(clientId, clientSecret, method, grantTypes) {
  return {
    client_id: clientId,
    client_secret: clientSecret,
    token_endpoint_auth_method: method,
    grant_types: grantTypes,
    redirect_uris: [],
    response_types: [],
    scope: SCOPES.join(' '),
    id_token_signed_response_alg: 'ES256',
  };
}

const MACHINE_GRANTS = ['client_credentials', 'refresh_token'];
const CLIENTS = [
  // Reserved characters on purpose: RFC 6749 section 2.3.1 has both halves form-encoded before base64.
  buildClient('basic-client', 'b: s%cret+/&=', 'client_secret_basic', MACHINE_GRANTS),
  buildClient('post-client', 'p: s%cret+/&=', 'client_secret_post', MACHINE_GRANTS),
  buildClient('resource-server', 'resource-server-secret', 'client_secret_basic', []),
];

const LOGIN_CLIENTS = [
  {
    client_id: 'app-client',
    token_endpoint_auth_method: 'none',
    application_type: 'native', // a loopback redirect URI matches on any port (RFC 8252 section 7.3)
    grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
    redirect_uris: ['http://127.0.0.1/-/callback', 'http://localhost/registered/elsewhere'],
    response_types: ['code'],
    scope: SCOPES.join(' '),
    id_token_signed_response_alg: 'ES256',
  },
  {
    client_id: 'narrow-client', // may have one scope, and log people in
    token_endpoint_auth_method: 'none',
    application_type: 'native',
    grant_types: ['authorization_code'],
    redirect_uris: ['http://127.0.0.1/-/callback'],
    response_types: ['code'],
    scope: 'openid',
    id_token_signed_response_alg: 'ES256',
  },
];

function buildProvider(issuer) {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return new Provider(issuer, {
    adapter: Adapter,
    clients: [...CLIENTS, ...LOGIN_CLIENTS],
    clockTolerance: 0,
    cookies: { keys: ['tests only'] },
    enabledJWA: { idTokenSigningAlgValues: ['ES256'] },
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      devInteractions: { enabled: true }, // its own forms: any name, any password
      introspection: {
        enabled: true,
        allowedPolicy: (_, client, token) =>
          client.clientId === 'resource-server' || client.clientId === token.clientId,
      },
      resourceIndicators: {
        enabled: true, // RFC 8707: any resource, whose tokens have it as their audience
        defaultResource: () => undefined,
        getResourceServerInfo: () => ({ scope: 'api:read api:write', accessTokenFormat: 'opaque' }),
        useGrantedResource: () => false,
      },
      revocation: { enabled: true, allowedPolicy: (_, client, token) => client.clientId === token.clientId },
    },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig' }] },
    rotateRefreshToken: true,
    scopes: SCOPES,
    ttl: {
      AccessToken: settings.access_token_s,
      AuthorizationCode: 60,
      ClientCredentials: settings.access_token_s,
      DeviceCode: settings.device_code_s,
      Grant: GRANT_S,
      IdToken: settings.access_token_s,
      Interaction: 600,
      RefreshToken: settings.refresh_token_s,
      Session: 600,
    },
  });
}

// ---------------------------------------------------------------- what is seen and how it is answered

const log = { requests: [], grants_revoked: 0, grants_revoked_by_reuse: 0 };
const MODES = new Set(['none', 'refuse', 'hang', 'error500', 'lost', 'closed']);
let mode = 'none';

function buildEntry() {
  return {
    at: Date.now() / 1000,
    mode,
    client: null,
    auth: null,
    grant_type: null,
    refresh_token: null,
    status: null,
    error: null,
    expires_at: null,
  };
}

function noteRequest(entry, headers, form) {
  // The provider lets a client use either method, whichever it is registered with: tests must look here.
  if (form.client_secret) entry.auth = 'client_secret_post';
  else if (headers.authorization) entry.auth = 'client_secret_basic';
  entry.grant_type = form.grant_type ?? null;
  if (form.refresh_token) {
    entry.refresh_token = createHash('sha256').update(form.refresh_token).digest('hex').slice(0, 16);
  }
}

async function answerPaused(ctx, entry) {
  noteRequest(entry, ctx.headers, Object.fromEntries(new URLSearchParams(await text(ctx.req))));
  if (entry.mode === 'error500') {
    ctx.status = entry.status = 500;
    ctx.body = 'Internal Server Error';
    return;
  }
  ctx.respond = false;
  if (entry.mode === 'refuse') ctx.req.socket.destroy();
}

async function answerToken(ctx, next, entry) {
  if (entry.mode === 'lost') ctx.respond = false;
  await next();
  const { AccessToken, ClientCredentials } = ctx.oidc?.entities ?? {};
  const issued = AccessToken ?? ClientCredentials;
  noteRequest(entry, ctx.headers, ctx.oidc?.params ?? {});
  entry.client = ctx.oidc?.client?.clientId ?? null;
  entry.status = ctx.status;
  entry.error = ctx.body?.error ?? null;
  // A parallel replay may have revoked it by now.
  if (ctx.status === 200) entry.expires_at = store.get(`${issued.kind}:${issued.jti}`)?.exp ?? null;
  if (entry.mode === 'lost') ctx.req.socket.destroy();
}

async function watchTokenEndpoint(ctx, next) {
  if (ctx.path !== '/token') return next();
  const entry = buildEntry();
  log.requests.push(entry);
  return ['none', 'lost'].includes(mode) ? answerToken(ctx, next, entry) : answerPaused(ctx, entry);
}

// ---------------------------------------------------------------- control

async function mintRefreshToken({ client_id: clientId, scope = 'openid offline_access api:read' }) {
  const client = await provider.Client.find(clientId);
  const accountId = 'user-1';
  const grant = new provider.Grant({ accountId, clientId });
  grant.addOIDCScope(scope);
  const grantId = await grant.save();
  const token = new provider.RefreshToken({ accountId, client, grantId, gty: 'authorization_code', scope });
  return { refresh_token: await token.save() };
}

async function revokeAccess({ token }) {
  const found = (await provider.AccessToken.find(token)) ?? (await provider.ClientCredentials.find(token));
  await found?.destroy();
  return { revoked: Boolean(found) };
}

async function pause({ mode: wanted }) {
  if (!MODES.has(wanted)) throw new Error(`unknown mode ${wanted}`);
  mode = wanted;
  if (mode === 'closed' && server.listening) {
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  } else if (mode !== 'closed' && !server.listening) {
    await listen(server, issuerPort);
  }
  return { mode };
}

const CONTROL = {
  'POST /refresh-token': mintRefreshToken,
  'POST /revoke-access': revokeAccess,
  'POST /pause': pause,
  'GET /log': async () => log,
};

async function answerControl(request, response) {
  const handle = CONTROL[`${request.method} ${request.url}`];
  try {
    if (!handle) throw new Error('no such control');
    const body = await text(request);
    response.end(JSON.stringify(await handle(body ? JSON.parse(body) : {})));
  } catch (error) {
    response.writeHead(400).end(String(error));
  }
}

// ---------------------------------------------------------------- start and end

async function listen(listener, port) {
  listener.listen(port, HOST);
  await once(listener, 'listening');
  return listener.address().port;
}

process.stdin.on('close', () => process.exit(0)).resume();

const server = createServer();
const control = createServer(answerControl);
const issuerPort = await listen(server, settings.port);
const issuer = `http://${HOST}:${issuerPort}`;
const controlPort = await listen(control, 0);

const provider = buildProvider(issuer);
provider.use(watchTokenEndpoint);
provider.on('server_error', (_, error) => console.error(error));
provider.on('grant.revoked', (ctx) => {
  log.grants_revoked += 1;
  if (ctx.oidc.route === 'token') log.grants_revoked_by_reuse += 1;
});
server.on('request', provider.callback());

process.stdout.write(`${JSON.stringify({ issuer, control: `http://${HOST}:${controlPort}` })}\n`);

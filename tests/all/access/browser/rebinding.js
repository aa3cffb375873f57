// Waits until its own host name leads to another server, then asks that one as if it were its own.

const bearer = { authorization: 'Bearer ' + setup.token };
const json = { 'content-type': 'application/json' };

// Its first server says that it is the first. A connection that is cut is one to it, and there will be no other.
async function rebound() {
  const is_first = async path => (await fetch(path, { cache: 'no-store' })).headers.has('x-first');
  try {
    await fetch('/loaded');
    while (await is_first('/livez')) await new Promise(done => setTimeout(done, 20));
  } catch { }
}

const reads = {
  'fetch': url => fetched(url),
  'fetch authorization': url => fetched(url, { headers: bearer }),
  'fetch no-cors': url => fetched(url, { mode: 'no-cors' }),
  'XMLHttpRequest': url => requested('GET', url, {}),
  'iframe': url => framed(element('iframe', { src: url })),
  'form GET': url => submitted(form({ method: 'get' }, url, 'a=b')),
  'window.open': opened,
  'script': url => scripted(url),
  'EventSource': streamed,
  'WebSocket': socket,
};

const writes = {
  'fetch JSON': (url, body) => fetched(url, { method: 'POST', headers: json, body }),
  'fetch JSON authorization': (url, body) => fetched(url, { method: 'POST', headers: { ...json, ...bearer }, body }),
  'fetch gRPC': (url, body) => fetched(url, { method: 'POST', headers: { 'content-type': 'application/grpc' }, body }),
  'XMLHttpRequest JSON': (url, body) => requested('POST', url, json, body),
  'form text/plain': (url, body) => submitted(form({ enctype: 'text/plain' }, url, body)),
};

// Each listener is at the page's own origin.
const own = { name: location.origin, http: location.origin, otlp_http: location.origin, otlp_grpc: location.origin };

rebound().then(() => attempt_all(writes, reads, [own]));

// What both pages share. `setup` has `writes`, `reads`, `token`, `marked` and `report`. An attempt ends with `read`, what
// the page could read of an answer or null, and `said`, what the browser told it.

const PATIENCE = 60000;

const nothing = said => ({ read: null, said });

// Ends also where the browser tells nothing at all.
function bounded(attempt) {
  const silence = new Promise(done => setTimeout(() => done(nothing('silence')), PATIENCE));
  return Promise.race([attempt().catch(error => nothing(error.name)), silence]);
}

// Resolves with the name of the event that came first.
function event(target, ...names) {
  return new Promise(done => names.forEach(name => target.addEventListener(name, () => done(name), { once: true })));
}

// Adds the element and waits until it is loaded or has failed.
async function placed(element) {
  const ended = event(element, 'load', 'error', 'loadedmetadata');
  document.body.append(element);
  return ended;
}

function element(name, attributes) {
  return Object.assign(document.createElement(name), attributes);
}

// What a page can see of a document in a frame or window.
function seen(view) {
  try {
    return view.document.documentElement.textContent;
  } catch {
    return null;
  }
}

async function framed(frame) {
  const said = await placed(frame);
  const read = seen(frame.contentWindow);
  frame.remove();
  return { read: read || null, said };
}

async function fetched(url, options) {
  const answer = await fetch(url, options);
  if (answer.type === 'opaque' || answer.type === 'opaqueredirect') return nothing(answer.type);
  return { read: answer.status + ' ' + await answer.text(), said: answer.type };
}

async function requested(method, url, headers, body) {
  const request = new XMLHttpRequest();
  request.open(method, url);
  for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
  const ended = event(request, 'load', 'error');
  request.send(body);
  const said = await ended;
  return said === 'load' ? { read: request.status + ' ' + request.responseText, said } : nothing(said);
}

async function streamed(url) {
  const source = new EventSource(url);
  const told = new Promise(done => source.addEventListener('message', message => done(message.data)));
  const said = await Promise.race([told.then(() => 'message'), event(source, 'error')]);
  source.close();
  return said === 'message' ? { read: await told, said } : nothing(said);
}

async function socket(url) {
  const open = new WebSocket(url.replace('http:', 'ws:'));
  const said = await event(open, 'open', 'error');
  open.close();
  return said === 'open' ? { read: 'open', said } : nothing(said);
}

// A window of its own. It is blank until it has come to where it was sent.
async function opened(url) {
  const view = window.open(url);
  if (!view) return nothing('blocked');
  for (let waited = 0; waited < PATIENCE; waited += 20) {
    let place = 'elsewhere';
    try { place = view.location.href; } catch { }
    if (place !== 'about:blank' && (place === 'elsewhere' || view.document.readyState === 'complete')) {
      const read = seen(view);
      view.close();
      return { read: read || null, said: place === 'elsewhere' ? 'another origin' : 'same origin' };
    }
    await new Promise(done => setTimeout(done, 20));
  }
  view.close();
  return nothing('silence');
}

// The body of a form is made of names and values: a text with an equals sign can be sent as it is by text/plain.
function form(attributes, url, text) {
  const [name, ...rest] = text.split('=');
  const made = element('form', { method: 'post', action: url, ...attributes });
  made.append(element('input', { type: 'hidden', name, value: rest.join('=') }));
  return made;
}

// Sends a form into a frame.
let frames = 0;
async function submitted(made) {
  const frame = element('iframe', { name: 'frame' + ++frames });
  document.body.append(frame, made);
  made.target = frame.name;
  const ended = event(frame, 'load');
  made.submit();
  const said = await ended;
  const read = seen(frame.contentWindow);
  made.remove();
  frame.remove();
  return { read: read || null, said };
}

function report(what) {
  return fetch(setup.report, { method: 'POST', mode: 'no-cors', body: JSON.stringify(what) });
}

// A script of another site that fails is told of by these words, and no more.
const ELSEWHERE = 'Script error.';

window.addEventListener('error', event => {
  if (event.message && event.message !== ELSEWHERE) report({ broken: event.message });
});
window.addEventListener('unhandledrejection', event => report({ broken: String(event.reason) }));

// What a script that came has told: a text of one word is a script too, which asks for the variable of this name. The
// server of the test says `self.told = …` besides. One that fails is heard of as well.
let heard = null;
for (const word of ['ok', 'ready', 'told']) {
  const hear = () => { heard = word; };
  Object.defineProperty(window, word, { get: hear, set: hear });
}
window.addEventListener('error', event => { if (event.message === ELSEWHERE) heard = event.message; });

async function scripted(url, attributes) {
  heard = null;
  const said = await placed(element('script', { src: url, ...attributes }));
  return { read: heard, said };
}

// These tell by a variable of the page, so they go one after the other.
const alone = ['script', 'script module', 'import()'];

async function attempted(kind, name, way, places, wanted) {
  const attempts = [];
  for (const place of places) {
    for (const { listener, path, body } of wanted) {
      const mark = setup.marked ? '/' + encodeURIComponent(name) : '';
      const attempt = bounded(() => way(place[listener] + mark + path, body));
      if (alone.includes(name)) await attempt;
      attempts.push(attempt.then(ended => ({ kind, way: name, place: place.name, path, ...ended })));
    }
  }
  return Promise.all(attempts);
}

async function attempt_all(writes, reads, places) {
  for (const [kind, ways, wanted] of [['write', writes, setup.writes], ['read', reads, setup.reads]]) {
    for (const [name, way] of Object.entries(ways)) {
      await report({ attempts: await attempted(kind, name, way, places, wanted) });
    }
  }
  await report({ done: true });
}

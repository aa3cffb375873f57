// Tries what a page of another site can do to a server on this machine, and reports each attempt.
// `setup.places` has a base URL for each listener.

const bearer = { authorization: 'Bearer ' + setup.token };
const json = { 'content-type': 'application/json' };
const blob = (text, type) => new Blob([text], { type });
const post = (body, options) => url => fetched(url, { method: 'POST', body, ...options });
const redirect = url => '/redirect?to=' + encodeURIComponent(url);

// A form of a frame without an origin.
async function sandboxed(url, text) {
  const made = form({ enctype: 'text/plain' }, url, text);
  const frame = element('iframe', { sandbox: 'allow-forms allow-scripts' });
  frame.srcdoc = made.outerHTML + '<script>onload = () => setTimeout(() => document.forms[0].submit())</script>';
  await placed(frame);
  const said = await event(frame, 'load');
  const read = seen(frame.contentWindow);
  frame.remove();
  return { read, said };
}

function with_file(url, text) {
  const made = element('form', { method: 'post', action: url, enctype: 'multipart/form-data' });
  const input = element('input', { type: 'file', name: 'file' });
  const files = new DataTransfer();
  files.items.add(new File([text], 'body.json', { type: 'application/json' }));
  input.files = files.files;
  made.append(input);
  return made;
}

// A click on a link also tells the address in `ping`.
async function pinged(url) {
  const link = element('a', { href: '#pinged', ping: url, textContent: 'here' });
  document.body.append(link);
  link.click();
  return nothing('clicked');
}

const queued = sent => nothing(sent ? 'queued' : 'not queued');

// Ways to send a body.
const writes = {
  'form text/plain': (url, text) => submitted(form({ enctype: 'text/plain' }, url, text)),
  'form urlencoded': (url, text) => submitted(form({}, url, text)),
  'form multipart': (url, text) => submitted(form({ enctype: 'multipart/form-data' }, url, text)),
  'form with a JSON file': (url, text) => submitted(with_file(url, text)),
  'form without referrer': (url, text) => submitted(form({ enctype: 'text/plain', rel: 'noreferrer' }, url, text)),
  'form in a sandboxed frame': sandboxed,
  'form that is redirected': (url, text) => submitted(form({ enctype: 'text/plain' }, redirect(url), text)),
  'fetch no-cors text/plain': (url, text) => post(text, { mode: 'no-cors' })(url),
  'fetch no-cors JSON': (url, text) => post(text, { mode: 'no-cors', headers: json })(url),
  'fetch no-cors Blob of JSON': (url, text) => post(blob(text, 'application/json'), { mode: 'no-cors' })(url),
  'fetch no-cors without a type': (url, text) => post(blob(text, ''), { mode: 'no-cors' })(url),
  'fetch no-cors authorization': (url, text) => post(text, { mode: 'no-cors', headers: bearer })(url),
  'fetch no-cors credentials': (url, text) => post(text, { mode: 'no-cors', credentials: 'include' })(url),
  'fetch no-cors without referrer': (url, text) => post(text, { mode: 'no-cors', referrerPolicy: 'no-referrer' })(url),
  'fetch no-cors keepalive': (url, text) => post(text, { mode: 'no-cors', keepalive: true })(url),
  'fetch no-cors redirected': (url, text) => post(text, { mode: 'no-cors' })(redirect(url)),
  'fetch cors text/plain': (url, text) => post(text)(url),
  'fetch cors JSON': (url, text) => post(text, { headers: json })(url),
  'fetch cors authorization': (url, text) => post(text, { headers: bearer })(url),
  'fetch cors JSON authorization': (url, text) => post(text, { headers: { ...json, ...bearer } })(url),
  'fetch cors redirected': (url, text) => post(text, { headers: json })(redirect(url)),
  'fetch PUT': (url, text) => fetched(url, { method: 'PUT', body: text, headers: json }),
  'XMLHttpRequest text/plain': (url, text) => requested('POST', url, {}, text),
  'XMLHttpRequest JSON': (url, text) => requested('POST', url, json, text),
  'sendBeacon text': async (url, text) => queued(navigator.sendBeacon(url, text)),
  'sendBeacon Blob text/plain': async (url, text) => queued(navigator.sendBeacon(url, blob(text, 'text/plain'))),
  'sendBeacon Blob JSON': async (url, text) => queued(navigator.sendBeacon(url, blob(text, 'application/json'))),
  'sendBeacon urlencoded': async (url, text) => queued(navigator.sendBeacon(url, new URLSearchParams({ body: text }))),
  'ping of a link': pinged,
  // A page whose policy is broken by itself tells the address that the policy names.
  'report of a policy': url => framed(element('iframe', { src: '/policy?report=' + encodeURIComponent(url) })),
};

async function imaged(url, attributes) {
  const image = element('img', { ...attributes, src: url });
  const said = await placed(image);
  return image.naturalWidth > 0 ? { read: image.naturalWidth + ' wide', said } : nothing(said);
}

async function imported(url) {
  heard = null;
  await import(url);
  return { read: heard, said: 'imported' };
}

async function styled(url, attributes) {
  const link = element('link', { rel: 'stylesheet', href: url, ...attributes });
  const said = await placed(link);
  let read = null;
  try { read = link.sheet.cssRules.length > 0 ? link.sheet.cssRules[0].cssText : null; } catch { }
  link.remove();
  return { read, said };
}

async function worked(url) {
  const code = `try { importScripts('${url}'); postMessage(self.told) } catch (error) { postMessage(null) }`;
  const worker = new Worker(URL.createObjectURL(blob(code, 'text/javascript')));
  const read = await new Promise(done => { worker.onmessage = message => done(message.data); });
  worker.terminate();
  return { read: read ?? null, said: read ? 'ran' : 'did not run' };
}

async function lettered(url) {
  const face = new FontFace('told', `url(${url})`);
  const loaded = await face.load();
  return { read: loaded.family, said: 'loaded' };
}

// Ways to have an answer shown.
const reads = {
  'fetch cors': url => fetched(url),
  'fetch cors authorization': url => fetched(url, { headers: bearer }),
  'fetch no-cors': url => fetched(url, { mode: 'no-cors' }),
  'fetch redirected': url => fetched('/redirect?to=' + encodeURIComponent(url)),
  'XMLHttpRequest': url => requested('GET', url, {}),
  'img': url => imaged(url),
  'img without referrer': url => imaged(url, { referrerPolicy: 'no-referrer' }),
  'script': url => scripted(url),
  'script module': url => scripted(url, { type: 'module' }),
  'import()': imported,
  'importScripts': worked,
  'link stylesheet': url => styled(url),
  'link stylesheet cors': url => styled(url, { crossOrigin: 'anonymous' }),
  'link prefetch': async url => nothing(await placed(element('link', { rel: 'prefetch', href: url }))),
  'FontFace': lettered,
  'video': async url => nothing(await placed(element('video', { src: url, preload: 'metadata' }))),
  'iframe': url => framed(element('iframe', { src: url })),
  'iframe sandboxed': url => framed(element('iframe', { src: url, sandbox: '' })),
  'iframe redirected': url => framed(element('iframe', { src: redirect(url) })),
  'form GET': url => submitted(form({ method: 'get' }, url, 'a=b')),
  'object': url => framed(element('object', { data: url })),
  'embed': async url => nothing(await placed(element('embed', { src: url }))),
  'EventSource': streamed,
  'WebSocket': socket,
  'window.open': opened,
};

attempt_all(writes, reads, setup.places);

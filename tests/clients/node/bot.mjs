// A bot on Node with the ordinary JavaScript SDK, which sends OTLP as JSON: the same contract as
// deploy/example-bot/bot.py, with the Vercel AI SDK making the GenAI spans. Prompts and answers are in those spans,
// as the AI SDK has it by default; that they stay out of the records is for Tacho to see to.
import { createRequire } from 'node:module';
import { randomUUID } from 'node:crypto';
import { createOpenAI } from '@ai-sdk/openai';
import { trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { registerInstrumentations } from '@opentelemetry/instrumentation';
import { HttpInstrumentation } from '@opentelemetry/instrumentation-http';
import { detectResources, envDetector } from '@opentelemetry/resources';
import { BatchSpanProcessor, NodeTracerProvider } from '@opentelemetry/sdk-trace-node';
import { generateText, streamText } from 'ai';

const provider = new NodeTracerProvider({
  resource: detectResources({ detectors: [envDetector] }), // OTEL_SERVICE_NAME
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())], // OTEL_EXPORTER_OTLP_ENDPOINT
});
provider.register();
registerInstrumentations({ instrumentations: [new HttpInstrumentation()] });
// The instrumentation patches what `require` gives; an `import` above it would have come too early.
const http = createRequire(import.meta.url)('node:http');

const openai = createOpenAI(); // OPENAI_BASE_URL, OPENAI_API_KEY

// Asks the model `calls` times, each time with all that was said before; yields the text as it comes.
async function* talk({ message, calls = 1, stream = false, model = 'gpt-4o-mini' }, user, headers) {
  const messages = [{ role: 'user', content: message }];
  for (let call = 0; call < calls; call++) {
    const question = {
      model: openai.chat(model),
      messages,
      headers,
      experimental_telemetry: { isEnabled: true, functionId: 'invoke', metadata: user ? { userId: user } : {} },
    };
    let answer = '';
    if (stream) {
      for await (const text of streamText(question).textStream) {
        answer += text;
        yield text;
      }
    } else {
      answer = (await generateText(question)).text;
      yield answer;
    }
    messages.push({ role: 'assistant', content: answer }, { role: 'user', content: 'Go on.' });
  }
}

async function answer(request, response) {
  if (request.method === 'GET' && request.url === '/health') return response.end('ok');
  const agent = /^\/agents\/([^/]+)\/invoke$/.exec(request.url)?.[1];
  if (request.method !== 'POST' || !agent) return response.writeHead(404).end();

  const user = request.headers['x-user-id'];
  if (user) trace.getActiveSpan()?.setAttribute('user.id', user);
  let body = '';
  for await (const part of request) body += part;
  // These tell the stand-in for whom it answers, so that its log can be compared with the records.
  const headers = {
    'x-request-id': request.headers['x-request-id'] ?? randomUUID(),
    'x-user-id': user ?? '',
    'x-agent-id': agent,
  };
  for await (const text of talk(JSON.parse(body), user, headers)) response.write(text);
  response.end();
}

const server = http.createServer((request, response) => {
  answer(request, response).catch((error) => {
    console.error(error);
    if (response.headersSent) response.destroy();
    else response.writeHead(500).end();
  });
});
const port = process.argv[2] === '--port' ? Number(process.argv[3]) : 0;
server.listen(port, '127.0.0.1', () => console.log(`listening on 127.0.0.1:${server.address().port}`));

process.once('SIGTERM', () => {
  server.close(async () => {
    await provider.shutdown(); // sends what is still waiting
    process.exit(0);
  });
  server.closeIdleConnections();
});

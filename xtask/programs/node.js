// A server that answers with what it was sent, and a client of one large and many small requests.
const fs = require('fs');
const http = require('http');
const [role, port, from, to] = process.argv.slice(2);

function serve() {
  const server = http.createServer((request, response) => request.pipe(response));
  server.listen(Number(port), '127.0.0.1');
  process.on('SIGTERM', () => {
    server.close(() => process.exit(0));
    server.closeAllConnections();
  });
}

function request(agent, body, sink) {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port: Number(port), method: 'POST', agent };
    const call = http.request(options, (response) => {
      response.pipe(sink);
      sink.on('finish', resolve);
      sink.on('error', reject);
    });
    call.on('error', reject);
    body.pipe(call);
  });
}

function small(agent, text) {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port: Number(port), method: 'POST', agent };
    const call = http.request(options, (response) => {
      let heard = '';
      response.on('data', (piece) => { heard += piece; });
      response.on('end', () => (heard === text ? resolve() : reject(new Error(heard))));
    });
    call.on('error', reject);
    call.end(text);
  });
}

async function call() {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  await request(agent, fs.createReadStream(from), fs.createWriteStream(to));
  await Promise.all(Array.from({ length: 500 }, (_, at) => small(agent, `message ${at}`)));
  agent.destroy();
}

if (role === 'serve') {
  serve();
} else {
  call().catch((error) => {
    console.error(error);
    process.exit(1);
  });
}

// A web service that tells Slipstream what users do: Node's own HTTP server, and @platformatic/kafka's producer.
//
// POST /engagements  {"user_id": "u-17", "item_id": "pin-9", "action": "save", "surface": "home"}
//     202  the event is in Kafka, on all in-sync replicas
//     400  it is no event: the body says why
//     503  Kafka did not take it in time: the caller may send it again
// GET  /health       200 while the service serves
//
// Run: KAFKA_BOOTSTRAP=127.0.0.1:9092 node service.js

import { createServer } from 'node:http'
import { Producer, ProduceAcks, compatibilityPartitioner, stringSerializers } from '@platformatic/kafka'

const {
  KAFKA_BOOTSTRAP = '127.0.0.1:9092',
  TOPIC = 'slipstream.engagements',
  PORT = '8081',
  DELIVERY_TIMEOUT_MS = '10000'
} = process.env
const MAX_BODY_BYTES = 4096
const ATTEMPTS = 4

const producer = new Producer({
  clientId: 'web',
  bootstrapBrokers: KAFKA_BOOTSTRAP.split(','),
  serializers: stringSerializers,
  acks: ProduceAcks.ALL,
  // Not idempotent: this client (1.35) moves a partition's sequence number on when the answer comes, so a send beside another, or
  // after one that timed out, would take a number twice, and the broker drop it as a duplicate. Slipstream makes duplicates one.
  idempotent: false,
  partitioner: compatibilityPartitioner, // as Java's: a user's events go where other clients' go
  autocreateTopics: false,
  timeout: Number(DELIVERY_TIMEOUT_MS) / ATTEMPTS,
  connectTimeout: Number(DELIVERY_TIMEOUT_MS) / ATTEMPTS,
  retries: ATTEMPTS - 1,
  retryDelay: 100
})

// The event of a client's body. When it happened is for the server to say: clients' clocks are wrong.
function checked (body, timestampMs) {
  let said
  try {
    said = JSON.parse(body)
  } catch (error) {
    throw new TypeError(`not JSON: ${error.message}`)
  }
  for (const name of ['user_id', 'action', 'surface']) requireText(said?.[name], name)
  const { user_id, item_id, action, surface } = said
  // Of a number past 2^53 JSON.parse has lost digits already: send such ids as text.
  if (!(Number.isSafeInteger(item_id) && item_id >= 0)) requireText(item_id, 'item_id, if it is no integer in [0, 2^53),')
  return { user_id, item_id, action, surface, timestamp_ms: timestampMs }
}

function requireText (value, name) {
  if (typeof value !== 'string' || value.length < 1 || value.length > 64) {
    throw new TypeError(`${name} must be text of 1 to 64 characters`)
  }
}

async function read (request) {
  const pieces = []
  let bytes = 0
  for await (const piece of request) {
    bytes += piece.length
    if (bytes > MAX_BODY_BYTES) throw new RangeError(`the body is longer than ${MAX_BODY_BYTES} bytes`)
    pieces.push(piece)
  }
  return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(pieces))
}

async function engagements (request) {
  const nowMs = Date.now()
  let event
  try {
    event = checked(await read(request), nowMs)
  } catch (error) {
    return [error instanceof RangeError ? 413 : 400, { error: `no engagement: ${error.message}` }]
  }
  try {
    // The key keeps a user's events on one partition, and so in order.
    await producer.send({ messages: [{ topic: TOPIC, key: event.user_id, value: JSON.stringify(event) }] })
    return [202]
  } catch (error) {
    console.error(`not delivered: an event of ${event.user_id}: ${error.errors?.[0]?.message ?? error.message}`)
    return [503, { error: 'not delivered in time: try again' }]
  }
}

const server = createServer(async (request, response) => {
  let answer = [404, { error: 'POST /engagements, GET /health' }]
  if (request.method === 'POST' && request.url === '/engagements') answer = await engagements(request)
  else if (request.method === 'GET' && request.url === '/health') answer = [200, { ok: true }]
  const [status, body] = answer
  response.writeHead(status, { 'content-type': 'application/json' }).end(body ? JSON.stringify(body) : '')
})

// Requests that are under way end, and with them their sends; then the producer.
process.once('SIGTERM', () => {
  server.close(async () => {
    await producer.close()
  })
  server.closeIdleConnections()
})

server.listen(Number(PORT), '127.0.0.1')

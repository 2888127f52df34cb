// What programs do with node-postgres, through the gateway: node node_client.cjs URL URL-of-another-user CONSOLE-URL

const assert = require('node:assert');
const { Client, Pool } = require('pg');

const [url, otherUrl, consoleUrl] = process.argv.slice(2);

async function main() {
  const client = new Client({ connectionString: url, application_name: 'node', statement_timeout: 60000 });
  await client.connect();
  // simple, with parameters, prepared by name
  assert.strictEqual((await client.query('SELECT 1 AS one')).rows[0].one, 1);
  for (let i = 0; i < 3; i++) {
    const result = await client.query('SELECT count(*) AS n FROM people WHERE id <= $1', [10]);
    assert.strictEqual(result.rows[0].n, '10');
    const named = await client.query({ name: 'by-id', text: 'SELECT name FROM people WHERE id = $1', values: [i + 1] });
    assert.strictEqual(named.rows[0].name, `p${i + 1}`);
  }
  assert.strictEqual((await client.query('SHOW statement_timeout')).rows[0].statement_timeout, '1min');
  // several statements, several results
  const several = await client.query("SELECT 1 AS a; SELECT 'x' AS b");
  assert.deepStrictEqual(several.map((result) => result.rows), [[{ a: 1 }], [{ b: 'x' }]]);
  // errors, and the session goes on
  await assert.rejects(client.query('SELECT nothing'), { code: '42703' });
  await assert.rejects(client.query('SELECT $1::int', ['x']), { code: '22P02' });
  // queries that are queued by the driver
  const answers = await Promise.all([...Array(50).keys()].map((i) => client.query('SELECT $1::int AS i', [i])));
  assert.deepStrictEqual(answers.map((answer) => answer.rows[0].i), [...Array(50).keys()]);
  // a transaction
  await client.query('BEGIN');
  await client.query('DELETE FROM people WHERE id > $1', [50]);
  assert.strictEqual((await client.query('SELECT count(*) AS n FROM people')).rows[0].n, '50');
  await client.query('ROLLBACK');
  // a cached answer
  for (let i = 0; i < 3; i++) {
    const result = await client.query('SELECT count(*)::int AS n, max(at) AS at FROM people');
    assert.strictEqual(result.rows[0].n, 100);
    assert.strictEqual(result.rows[0].at.toISOString(), '2024-01-01T01:40:00.000Z');
  }
  assert.strictEqual((await client.query('SHOW tollgate.last')).rows[0].verdict, 'hit');
  // notices and notifications
  const notices = [];
  client.on('notice', (notice) => notices.push(notice.message));
  await client.query("DO $$ BEGIN RAISE NOTICE 'hello'; END $$");
  assert.deepStrictEqual(notices, ['hello']);
  const other = new Client({ connectionString: otherUrl });
  await other.connect();
  const heard = new Promise((resolve) => client.once('notification', (message) => resolve(message.payload)));
  await client.query('LISTEN news');
  await other.query("NOTIFY news, 'hello'");
  assert.strictEqual(await heard, 'hello');
  await other.end();
  await client.end();

  const pool = new Pool({ connectionString: url, max: 8 });
  const many = await Promise.all(
    [...Array(100).keys()].map((i) => pool.query('SELECT $1::int + count(*)::int AS n FROM people', [i])),
  );
  assert.deepStrictEqual(many.map((result) => result.rows[0].n), [...Array(100).keys()].map((i) => i + 100));
  await pool.end();

  const console_ = new Client({ connectionString: consoleUrl });
  await console_.connect();
  assert.match((await console_.query('SHOW VERSION')).rows[0].version, /^Tollgate/);
  await console_.end();

  const wrong = new Client({ connectionString: url.replace('ana:ana', 'ana:wrong') });
  await assert.rejects(wrong.connect(), { code: '28P01' });
  console.log('done');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

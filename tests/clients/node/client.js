// Drives a server through node-zookeeper-client and checks every answer.
//
//   node client.js HOST:PORT PATH
//
// PATH does not exist and is made. Prints "ok WHAT" for each part; at "restart" it waits for a
// line on standard input, which says that the server has been restarted.
'use strict';

const assert = require('assert');
const readline = require('readline');
const { promisify } = require('util');
const zookeeper = require('node-zookeeper-client');

const [hosts, base] = process.argv.slice(2);
const { CreateMode, Exception, Event, ACL, Permission, Id } = zookeeper;
const WITHIN_MS = 30000;

const ok = (what) => console.log(`ok ${what}`);

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing happened: ${what}`)), WITHIN_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function open(options) {
  const client = zookeeper.createClient(hosts, { sessionTimeout: 10000, retries: 5, ...options });
  const session = {
    client,
    connected: within(new Promise((resolve) => client.once('connected', resolve)), 'connection'),
  };
  for (const name of ['create', 'remove', 'setData', 'setACL', 'getACL', 'mkdirp', 'exists',
    'getData', 'getChildren']) {
    const call = client[name].bind(client);
    // Some answers carry a Stat behind the value: give all of them as a list.
    session[name] = (...args) => within(new Promise((resolve, reject) => {
      call(...args, (error, ...values) => (error ? reject(error) : resolve(values)));
    }), name);
  }
  client.connect();
  return session;
}

async function refused(promise, code) {
  try {
    await promise;
  } catch (error) {
    assert.strictEqual(error.getCode ? error.getCode() : error, Exception[code], String(error));
    return;
  }
  assert.fail(`expected ${code}`);
}

function watched(call) {
  let watcher;
  const event = within(new Promise((resolve) => { watcher = resolve; }), 'event');
  return call(watcher).then(() => event);
}

async function nodes(zk) {
  assert.deepStrictEqual(await zk.create(base, Buffer.from('x')), [base]);
  await refused(zk.create(base, Buffer.from('x')), 'NODE_EXISTS');
  await refused(zk.create(`${base}/no/parent`, Buffer.from('x')), 'NO_NODE');
  await zk.create(`${base}/a`, Buffer.from('12345'));
  let [data, stat] = await zk.getData(`${base}/a`, null);
  assert.strictEqual(data.toString(), '12345');
  assert.strictEqual(stat.version, 0);
  assert.strictEqual(stat.dataLength, 5);
  [stat] = await zk.setData(`${base}/a`, Buffer.from('67'), 0);
  assert.strictEqual(stat.version, 1);
  await refused(zk.setData(`${base}/a`, Buffer.from('no'), 0), 'BAD_VERSION');
  await zk.create(`${base}/null`, null);
  [data] = await zk.getData(`${base}/null`, null);
  assert.ok(data === undefined || data === null || data.length === 0);
  await refused(zk.remove(base, -1), 'NOT_EMPTY');
  await zk.remove(`${base}/null`, -1);
  assert.deepStrictEqual(await zk.exists(`${base}/null`, null), [null]);
  await zk.mkdirp(`${base}/m/k/字`);
  const [made] = await zk.exists(`${base}/m/k/字`, null);
  assert.strictEqual(made.numChildren, 0);
  for (const path of ['/m/k/字', '/m/k', '/m']) {
    await zk.remove(base + path, -1);
  }
  ok('nodes');
}

async function kinds(zk) {
  await zk.create(`${base}/s`, null);
  const one = await zk.create(`${base}/s/n-`, null, CreateMode.PERSISTENT_SEQUENTIAL);
  const two = await zk.create(`${base}/s/n-`, null, CreateMode.EPHEMERAL_SEQUENTIAL);
  assert.deepStrictEqual([one[0], two[0]], [`${base}/s/n-0000000000`, `${base}/s/n-0000000001`]);
  const [stat] = await zk.exists(two[0], null);
  assert.ok(stat.ephemeralOwner.equals(zk.client.getSessionId()));
  const [children, parent] = await zk.getChildren(`${base}/s`, null);
  assert.deepStrictEqual(children.sort(), ['n-0000000000', 'n-0000000001']);
  assert.strictEqual(parent.numChildren, 2);
  await refused(zk.create(`${two[0]}/c`, null), 'NO_CHILDREN_FOR_EPHEMERALS');
  ok('kinds');
}

async function watches(zk) {
  const path = `${base}/w`;
  const created = watched((watcher) => zk.exists(path, watcher));
  await zk.create(path, null);
  assert.strictEqual((await created).getType(), Event.NODE_CREATED);
  const changed = watched((watcher) => zk.getData(path, watcher));
  await zk.setData(path, Buffer.from('1'), -1);
  assert.strictEqual((await changed).getType(), Event.NODE_DATA_CHANGED);
  const children = watched((watcher) => zk.getChildren(path, watcher));
  await zk.create(`${path}/c`, null);
  assert.strictEqual((await children).getType(), Event.NODE_CHILDREN_CHANGED);
  const deleted = watched((watcher) => zk.getData(`${path}/c`, watcher));
  await zk.remove(`${path}/c`, -1);
  const event = await deleted;
  assert.strictEqual(event.getType(), Event.NODE_DELETED);
  assert.strictEqual(event.getPath(), `${path}/c`);
  ok('watches');
}

async function transactions(zk) {
  const path = `${base}/t`;
  const commit = (transaction) => promisify(transaction.commit.bind(transaction))();
  const done = await commit(zk.client.transaction()
    .create(path, Buffer.from('1')).check(path, 0).setData(path, Buffer.from('22'), 0)
    .create(`${path}/c`));
  assert.strictEqual(done.length, 4);
  await refused(commit(zk.client.transaction()
    .remove(`${path}/c`, -1).check(path, 9).remove(path, -1)), 'BAD_VERSION');
  const [data] = await zk.getData(path, null);
  assert.strictEqual(data.toString(), '22');
  assert.notDeepStrictEqual(await zk.exists(`${path}/c`, null), [null]);
  ok('transactions');
}

async function permissions(zk) {
  const path = `${base}/p`;
  await refused(zk.create(path, null, ACL.CREATOR_ALL_ACL), 'INVALID_ACL');
  zk.client.addAuthInfo('digest', Buffer.from('ann:one'));
  await zk.create(path, null, ACL.CREATOR_ALL_ACL);
  const other = open();
  await other.connected;
  await refused(other.getData(path, null), 'NO_AUTH');
  const everyone = [new ACL(Permission.READ, Id.ANYONE_ID_UNSAFE)];
  await zk.setACL(path, everyone, 0);
  await other.getData(path, null);
  const [acls] = await other.getACL(path);
  assert.strictEqual(acls.length, 1);
  other.client.close();
  ok('permissions');
}

async function reconnection(zk) {
  const path = `${base}/e`;
  await zk.create(path, null, CreateMode.EPHEMERAL);
  const session = zk.client.getSessionId();
  const changed = watched((watcher) => zk.getData(`${base}/a`, watcher));
  const again = within(new Promise((resolve) => {
    zk.client.once('disconnected', () => zk.client.once('connected', resolve));
  }), 'reconnection');
  const input = readline.createInterface({ input: process.stdin });
  const restarted = new Promise((resolve) => input.once('line', resolve));
  ok('restart');
  await restarted;
  input.close();
  await again;
  assert.ok(zk.client.getSessionId().equals(session));
  const [stat] = await zk.exists(path, null);
  assert.ok(stat.ephemeralOwner.equals(session));
  await zk.setData(`${base}/a`, Buffer.from('new'), -1);
  assert.strictEqual((await changed).getType(), Event.NODE_DATA_CHANGED);
  ok('reconnection');
}

async function main() {
  const zk = open();
  await zk.connected;
  for (const part of [nodes, kinds, watches, transactions, permissions, reconnection]) {
    await part(zk);
  }
  zk.client.close();
  ok('end');
}

main().then(() => process.exit(0), (error) => {
  console.error(error && error.stack ? error.stack : error);
  process.exit(1);
});

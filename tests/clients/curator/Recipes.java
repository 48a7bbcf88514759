// Curator's recipes against a server, each with clients of its own; every outcome is checked.
//
//   java -cp JARS Recipes.java HOST:PORT [NAME ...]
//
// Prints "ok NAME" for each recipe; what fails is named on standard error and makes the exit
// status 1.

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.atomic.AtomicValue;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicValue;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.cache.ChildData;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessLock;
import org.apache.curator.framework.recipes.locks.InterProcessMultiLock;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreMutex;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.locks.Locker;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.nodes.PersistentTtlNode;
import org.apache.curator.framework.recipes.queue.DistributedDelayQueue;
import org.apache.curator.framework.recipes.queue.DistributedIdQueue;
import org.apache.curator.framework.recipes.queue.DistributedPriorityQueue;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.recipes.queue.SimpleDistributedQueue;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.shared.VersionedValue;
import org.apache.curator.framework.recipes.watch.PersistentWatcher;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryNTimes;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.data.Stat;

public class Recipes {
    static final int WITHIN_S = 30;

    interface Part {
        void run(String path) throws Exception;
    }

    static String hosts;
    static final List<CuratorFramework> open = new ArrayList<>();

    public static void main(String[] arguments) throws Exception {
        hosts = arguments[0];
        Set<String> wanted = new TreeSet<>(Arrays.asList(arguments).subList(1, arguments.length));
        int failed = 0;
        for (Map.Entry<String, Part> part : parts().entrySet()) {
            if (!wanted.isEmpty() && !wanted.contains(part.getKey())) {
                continue;
            }
            try {
                part.getValue().run("/" + part.getKey() + "-" + UUID.randomUUID());
                System.out.println("ok " + part.getKey());
            } catch (Throwable failure) {
                failed++;
                System.err.println("failed " + part.getKey());
                failure.printStackTrace();
            }
            for (CuratorFramework client : open) {
                client.close();
            }
            open.clear();
        }
        System.exit(failed == 0 ? 0 : 1);
    }

    static Map<String, Part> parts() {
        Map<String, Part> parts = new LinkedHashMap<>();
        parts.put("LeaderLatch", Recipes::leaderLatch);
        parts.put("LeaderSelector", Recipes::leaderSelector);
        parts.put("InterProcessMutex", path -> mutex(path, true));
        parts.put("InterProcessSemaphoreMutex", path -> mutex(path, false));
        parts.put("RevocableMutex", Recipes::revocable);
        parts.put("ReadWriteLock", Recipes::readWriteLock);
        parts.put("MultiLock", Recipes::multiLock);
        parts.put("Semaphore", Recipes::semaphore);
        parts.put("SharedCount", Recipes::sharedCount);
        parts.put("Barrier", Recipes::barrier);
        parts.put("DoubleBarrier", Recipes::doubleBarrier);
        parts.put("Queue", Recipes::queue);
        parts.put("IdQueue", Recipes::idQueue);
        parts.put("PriorityQueue", Recipes::priorityQueue);
        parts.put("DelayQueue", Recipes::delayQueue);
        parts.put("SimpleQueue", Recipes::simpleQueue);
        parts.put("AtomicLong", Recipes::atomicLong);
        parts.put("AtomicValue", Recipes::atomicValue);
        parts.put("GroupMember", Recipes::groupMember);
        parts.put("CuratorCache", Recipes::curatorCache);
        parts.put("PersistentNode", Recipes::persistentNode);
        parts.put("PersistentTtlNode", Recipes::persistentTtlNode);
        parts.put("PersistentWatcher", Recipes::persistentWatcher);
        parts.put("Transaction", Recipes::transaction);
        parts.put("ProtectedCreate", Recipes::protectedCreate);
        parts.put("ConnectionStates", Recipes::connectionStates);
        parts.put("Configuration", Recipes::configuration);
        return parts;
    }

    static CuratorFramework client() throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.builder()
                .connectString(hosts)
                .sessionTimeoutMs(4000)
                .connectionTimeoutMs(10000)
                .retryPolicy(new RetryNTimes(20, 200))
                .build();
        client.start();
        check(client.blockUntilConnected(WITHIN_S, TimeUnit.SECONDS), "not connected");
        open.add(client);
        return client;
    }

    static void check(boolean true_, String what) {
        if (!true_) {
            throw new AssertionError(what);
        }
    }

    static void same(Object expected, Object got) {
        check(expected.equals(got), "expected " + expected + ", got " + got);
    }

    static void until(Callable<Boolean> true_, String what) throws Exception {
        long end = System.nanoTime() + Duration.ofSeconds(WITHIN_S).toNanos();
        while (!true_.call()) {
            check(System.nanoTime() < end, what);
            Thread.sleep(10);
        }
    }

    /** Run all at the same time; what one throws is thrown here. */
    static <T> List<T> together(List<Callable<T>> all) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(all.size());
        try {
            List<T> results = new ArrayList<>();
            for (Future<T> future : threads.invokeAll(all, 2 * WITHIN_S, TimeUnit.SECONDS)) {
                results.add(future.get());
            }
            return results;
        } finally {
            threads.shutdownNow();
        }
    }

    static void expire(CuratorFramework client) throws Exception {
        client.getZookeeperClient().getZooKeeper().getTestable().injectSessionExpiration();
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static final QueueSerializer<String> STRINGS = new QueueSerializer<>() {
        @Override
        public byte[] serialize(String item) {
            return bytes(item);
        }

        @Override
        public String deserialize(byte[] data) {
            return new String(data, StandardCharsets.UTF_8);
        }
    };

    static QueueConsumer<String> into(BlockingQueue<String> taken) {
        return new QueueConsumer<>() {
            @Override
            public void consumeMessage(String message) {
                taken.add(message);
            }

            @Override
            public void stateChanged(CuratorFramework client, ConnectionState state) {}
        };
    }

    static String next(BlockingQueue<String> taken) throws Exception {
        String item = taken.poll(WITHIN_S, TimeUnit.SECONDS);
        check(item != null, "nothing came");
        return item;
    }

    // Leaders

    static void leaderLatch(String path) throws Exception {
        List<LeaderLatch> latches = new ArrayList<>();
        for (int number = 0; number < 3; number++) {
            LeaderLatch latch = new LeaderLatch(client(), path, "latch-" + number);
            latch.start();
            latches.add(latch);
        }
        Set<String> led = new TreeSet<>();
        while (!latches.isEmpty()) {
            until(() -> latches.stream().filter(LeaderLatch::hasLeadership).count() == 1,
                    "no single leader");
            LeaderLatch leader =
                    latches.stream().filter(LeaderLatch::hasLeadership).findFirst().get();
            same(leader.getId(), latches.get(0).getLeader().getId());
            same(latches.size(), latches.get(0).getParticipants().size());
            led.add(leader.getId());
            leader.close();
            latches.remove(leader);
        }
        same(3, led.size());
    }

    static void leaderSelector(String path) throws Exception {
        AtomicInteger inside = new AtomicInteger();
        AtomicInteger most = new AtomicInteger();
        BlockingQueue<String> led = new LinkedBlockingQueue<>();
        List<LeaderSelector> selectors = new ArrayList<>();
        for (int number = 0; number < 3; number++) {
            String name = "selector-" + number;
            LeaderSelector selector = new LeaderSelector(client(), path,
                    new LeaderSelectorListenerAdapter() {
                        @Override
                        public void takeLeadership(CuratorFramework client) {
                            most.accumulateAndGet(inside.incrementAndGet(), Math::max);
                            led.add(name);
                            inside.decrementAndGet();
                        }
                    });
            selector.autoRequeue();
            selector.start();
            selectors.add(selector);
        }
        Set<String> seen = new TreeSet<>();
        while (seen.size() < 3) {
            seen.add(next(led));
        }
        for (LeaderSelector selector : selectors) {
            selector.close();
        }
        same(1, most.get());
    }

    // Locks

    static void mutex(String path, boolean reentrant) throws Exception {
        CuratorFramework any = client();
        any.create().forPath(path + "-count", bytes("0"));
        List<Callable<Void>> all = new ArrayList<>();
        for (int number = 0; number < 4; number++) {
            CuratorFramework client = client();
            InterProcessLock lock = reentrant
                    ? new InterProcessMutex(client, path)
                    : new InterProcessSemaphoreMutex(client, path);
            all.add(() -> {
                for (int round = 0; round < 15; round++) {
                    try (Locker held = new Locker(lock, WITHIN_S, TimeUnit.SECONDS)) {
                        if (reentrant) {
                            lock.acquire();
                            lock.release();
                        }
                        Stat stat = new Stat();
                        byte[] now = client.getData().storingStatIn(stat).forPath(path + "-count");
                        int count = Integer.parseInt(new String(now)) + 1;
                        client.setData().withVersion(stat.getVersion())
                                .forPath(path + "-count", bytes("" + count));
                    }
                }
                return null;
            });
        }
        together(all);
        same("60", new String(any.getData().forPath(path + "-count")));
    }

    static void revocable(String path) throws Exception {
        CuratorFramework owner = client();
        CuratorFramework other = client();
        InterProcessMutex held = new InterProcessMutex(owner, path);
        CountDownLatch asked = new CountDownLatch(1);
        held.makeRevocable(lock -> asked.countDown());
        held.acquire();
        String node = new ArrayList<>(held.getParticipantNodes()).get(0);
        org.apache.curator.framework.recipes.locks.Revoker.attemptRevoke(other, node);
        check(asked.await(WITHIN_S, TimeUnit.SECONDS), "the owner was not asked");
        held.release();
        InterProcessMutex next = new InterProcessMutex(other, path);
        check(next.acquire(WITHIN_S, TimeUnit.SECONDS), "not free");
        next.release();
    }

    static void readWriteLock(String path) throws Exception {
        List<InterProcessReadWriteLock> locks = new ArrayList<>();
        for (int number = 0; number < 3; number++) {
            locks.add(new InterProcessReadWriteLock(client(), path));
        }
        InterProcessMutex one = locks.get(0).readLock();
        InterProcessMutex two = locks.get(1).readLock();
        InterProcessMutex writer = locks.get(2).writeLock();
        check(one.acquire(WITHIN_S, TimeUnit.SECONDS), "first reader");
        check(two.acquire(WITHIN_S, TimeUnit.SECONDS), "second reader");
        check(!writer.acquire(300, TimeUnit.MILLISECONDS), "a writer beside readers");
        one.release();
        two.release();
        check(writer.acquire(WITHIN_S, TimeUnit.SECONDS), "writer");
        check(!one.acquire(300, TimeUnit.MILLISECONDS), "a reader beside a writer");
        InterProcessMutex downgraded = locks.get(2).readLock();
        downgraded.acquire();
        writer.release();
        check(one.acquire(WITHIN_S, TimeUnit.SECONDS), "reader after the downgrade");
        one.release();
        downgraded.release();
    }

    static void multiLock(String path) throws Exception {
        List<String> paths = Arrays.asList(path + "/a", path + "/b");
        InterProcessMultiLock both = new InterProcessMultiLock(client(), paths);
        InterProcessMutex second = new InterProcessMutex(client(), path + "/b");
        second.acquire();
        check(!both.acquire(500, TimeUnit.MILLISECONDS), "got both");
        second.release();
        check(both.acquire(WITHIN_S, TimeUnit.SECONDS), "did not get both");
        check(!second.acquire(300, TimeUnit.MILLISECONDS), "got one of both");
        both.release();
    }

    static void semaphore(String path) throws Exception {
        List<InterProcessSemaphoreV2> all = new ArrayList<>();
        for (int number = 0; number < 3; number++) {
            all.add(new InterProcessSemaphoreV2(client(), path, 2));
        }
        Lease one = all.get(0).acquire(WITHIN_S, TimeUnit.SECONDS);
        Lease two = all.get(1).acquire(WITHIN_S, TimeUnit.SECONDS);
        check(one != null && two != null, "two leases");
        check(all.get(2).acquire(500, TimeUnit.MILLISECONDS) == null, "a third lease");
        open.get(0).close();
        Lease three = all.get(2).acquire(WITHIN_S, TimeUnit.SECONDS);
        check(three != null, "the lease of a closed client is not free");
        all.get(1).returnLease(two);
        all.get(2).returnLease(three);
    }

    static void sharedCount(String path) throws Exception {
        SharedCount one = new SharedCount(client(), path, 5);
        SharedCount two = new SharedCount(client(), path, 5);
        one.start();
        two.start();
        VersionedValue<Integer> before = two.getVersionedValue();
        one.setCount(7);
        until(() -> two.getCount() == 7, "the count did not arrive");
        check(!two.trySetCount(before, 9), "an old version was accepted");
        check(two.trySetCount(two.getVersionedValue(), 9), "the version was refused");
        until(() -> one.getCount() == 9, "the count did not come back");
        one.close();
        two.close();
    }

    // Barriers

    static void barrier(String path) throws Exception {
        DistributedBarrier control = new DistributedBarrier(client(), path);
        control.setBarrier();
        DistributedBarrier waiting = new DistributedBarrier(client(), path);
        check(!waiting.waitOnBarrier(300, TimeUnit.MILLISECONDS), "no barrier");
        Callable<Boolean> wait = () -> waiting.waitOnBarrier(WITHIN_S, TimeUnit.SECONDS);
        Callable<Boolean> remove = () -> {
            control.removeBarrier();
            return true;
        };
        same(Arrays.asList(true, true), together(Arrays.asList(wait, remove)));
    }

    static void doubleBarrier(String path) throws Exception {
        AtomicInteger inside = new AtomicInteger();
        AtomicInteger left = new AtomicInteger();
        List<Callable<Void>> all = new ArrayList<>();
        for (int number = 0; number < 3; number++) {
            DistributedDoubleBarrier barrier = new DistributedDoubleBarrier(client(), path, 3);
            all.add(() -> {
                check(barrier.enter(WITHIN_S, TimeUnit.SECONDS), "not in");
                inside.incrementAndGet();
                until(() -> inside.get() == 3, "not all in");
                same(0, left.get());
                check(barrier.leave(WITHIN_S, TimeUnit.SECONDS), "not out");
                return null;
            });
        }
        together(all);
    }

    // Queues

    static void queue(String path) throws Exception {
        BlockingQueue<String> taken = new LinkedBlockingQueue<>();
        List<DistributedQueue<String>> queues = new ArrayList<>();
        for (int number = 0; number < 2; number++) {
            DistributedQueue<String> queue = QueueBuilder
                    .builder(client(), into(taken), STRINGS, path).lockPath(path + "-locks")
                    .buildQueue();
            queue.start();
            queues.add(queue);
        }
        Set<String> expected = new TreeSet<>();
        for (int number = 0; number < 30; number++) {
            queues.get(number % 2).put("item-" + number);
            expected.add("item-" + number);
        }
        Set<String> got = new TreeSet<>();
        while (got.size() < 30) {
            check(got.add(next(taken)), "an item came twice");
        }
        same(expected, got);
        for (DistributedQueue<String> queue : queues) {
            queue.close();
        }
    }

    static void idQueue(String path) throws Exception {
        CuratorFramework client = client();
        DistributedIdQueue<String> producer =
                QueueBuilder.builder(client, null, STRINGS, path).buildIdQueue();
        producer.start();
        producer.put("one", "id-1");
        producer.put("two", "id-2");
        producer.flushPuts(WITHIN_S, TimeUnit.SECONDS);
        same(1, producer.remove("id-1"));
        same(0, producer.remove("id-1"));
        BlockingQueue<String> taken = new LinkedBlockingQueue<>();
        DistributedIdQueue<String> consumer =
                QueueBuilder.builder(client(), into(taken), STRINGS, path).buildIdQueue();
        consumer.start();
        same("two", next(taken));
        producer.close();
        consumer.close();
    }

    static void priorityQueue(String path) throws Exception {
        DistributedPriorityQueue<String> producer =
                QueueBuilder.builder(client(), null, STRINGS, path).buildPriorityQueue(0);
        producer.start();
        producer.put("later", 10);
        producer.put("first", -5);
        producer.put("second", 3);
        producer.flushPuts(WITHIN_S, TimeUnit.SECONDS);
        BlockingQueue<String> taken = new LinkedBlockingQueue<>();
        DistributedPriorityQueue<String> consumer =
                QueueBuilder.builder(client(), into(taken), STRINGS, path).buildPriorityQueue(0);
        consumer.start();
        same(Arrays.asList("first", "second", "later"),
                Arrays.asList(next(taken), next(taken), next(taken)));
        producer.close();
        consumer.close();
    }

    static void delayQueue(String path) throws Exception {
        BlockingQueue<String> taken = new LinkedBlockingQueue<>();
        DistributedDelayQueue<String> queue =
                QueueBuilder.builder(client(), into(taken), STRINGS, path).buildDelayQueue();
        queue.start();
        long begin = System.currentTimeMillis();
        queue.put("late", begin + 1200);
        queue.put("soon", begin + 300);
        same(Arrays.asList("soon", "late"), Arrays.asList(next(taken), next(taken)));
        check(System.currentTimeMillis() - begin >= 1200, "too early");
        queue.close();
    }

    static void simpleQueue(String path) throws Exception {
        SimpleDistributedQueue queue = new SimpleDistributedQueue(client(), path);
        queue.offer(bytes("one"));
        queue.offer(bytes("two"));
        same("one", new String(queue.peek()));
        same("one", new String(queue.take()));
        same("two", new String(queue.poll()));
        check(queue.poll(200, TimeUnit.MILLISECONDS) == null, "an item from nowhere");
    }

    // Atomics

    static void atomicLong(String path) throws Exception {
        List<Callable<Void>> all = new ArrayList<>();
        for (int number = 0; number < 4; number++) {
            DistributedAtomicLong counter =
                    new DistributedAtomicLong(client(), path, new RetryNTimes(200, 5));
            all.add(() -> {
                for (int round = 0; round < 20; round++) {
                    check(counter.increment().succeeded(), "not incremented");
                }
                return null;
            });
        }
        together(all);
        DistributedAtomicLong counter =
                new DistributedAtomicLong(client(), path, new RetryNTimes(10, 10));
        same(80L, counter.get().postValue());
    }

    static void atomicValue(String path) throws Exception {
        DistributedAtomicValue value =
                new DistributedAtomicValue(client(), path, new RetryNTimes(10, 10));
        check(value.initialize(bytes("a")), "not initialised");
        check(!value.initialize(bytes("b")), "initialised twice");
        AtomicValue<byte[]> wrong = value.compareAndSet(bytes("x"), bytes("b"));
        check(!wrong.succeeded(), "a wrong value was taken");
        check(value.compareAndSet(bytes("a"), bytes("b")).succeeded(), "the value was refused");
        same("b", new String(value.get().postValue()));
    }

    // Nodes and caches

    static void groupMember(String path) throws Exception {
        GroupMember one = new GroupMember(client(), path, "one", bytes("1"));
        GroupMember two = new GroupMember(client(), path, "two", bytes("2"));
        one.start();
        two.start();
        until(() -> one.getCurrentMembers().size() == 2, "two members");
        same("2", new String(one.getCurrentMembers().get("two")));
        two.setThisData(bytes("22"));
        until(() -> "22".equals(new String(one.getCurrentMembers().get("two"))), "new data");
        two.close();
        until(() -> one.getCurrentMembers().size() == 1, "one member");
        one.close();
    }

    static void curatorCache(String path) throws Exception {
        CuratorFramework writer = client();
        writer.create().creatingParentsIfNeeded().forPath(path + "/a", bytes("1"));
        BlockingQueue<String> seen = new LinkedBlockingQueue<>();
        CountDownLatch ready = new CountDownLatch(1);
        CuratorCache cache = CuratorCache.build(client(), path);
        cache.listenable().addListener(CuratorCacheListener.builder()
                .forInitialized(ready::countDown)
                .forCreates(node -> seen.add("created " + node.getPath()))
                .forChanges((before, after) -> seen.add("changed " + after.getPath()))
                .forDeletes(node -> seen.add("deleted " + node.getPath()))
                .build());
        cache.start();
        check(ready.await(WITHIN_S, TimeUnit.SECONDS), "not initialised");
        seen.clear();
        writer.create().forPath(path + "/a/b", bytes("2"));
        same("created " + path + "/a/b", next(seen));
        writer.setData().forPath(path + "/a", bytes("3"));
        same("changed " + path + "/a", next(seen));
        writer.delete().forPath(path + "/a/b");
        same("deleted " + path + "/a/b", next(seen));
        same("3", new String(cache.get(path + "/a").map(ChildData::getData).get()));
        for (int number = 0; number < 300; number++) {
            writer.create().forPath(path + "/a/" + number, bytes("x"));
        }
        until(() -> cache.size() == 302, "the cache is not complete");
        cache.close();
    }

    static void persistentNode(String path) throws Exception {
        CuratorFramework owner = client();
        CuratorFramework other = client();
        PersistentNode node =
                new PersistentNode(owner, CreateMode.EPHEMERAL, false, path, bytes("here"));
        node.start();
        check(node.waitForInitialCreate(WITHIN_S, TimeUnit.SECONDS), "not made");
        other.delete().forPath(path);
        until(() -> other.checkExists().forPath(path) != null, "not made again");
        long session = owner.getZookeeperClient().getZooKeeper().getSessionId();
        expire(owner);
        until(() -> {
            Stat stat = other.checkExists().forPath(path);
            return stat != null && stat.getEphemeralOwner() != session;
        }, "not made again after the session");
        node.close();
        until(() -> other.checkExists().forPath(path) == null, "still there");
    }

    static void persistentTtlNode(String path) throws Exception {
        CuratorFramework other = client();
        PersistentTtlNode node = new PersistentTtlNode(client(), path, 1000, bytes("here"));
        node.start();
        check(node.waitForInitialCreate(WITHIN_S, TimeUnit.SECONDS), "not made");
        long end = System.nanoTime() + Duration.ofSeconds(3).toNanos();
        while (System.nanoTime() < end) {
            check(other.checkExists().forPath(path) != null, "gone although it is touched");
            Thread.sleep(50);
        }
        node.close();
        until(() -> other.checkExists().forPath(path) == null, "outlives its TTL");
    }

    static void persistentWatcher(String path) throws Exception {
        CuratorFramework client = client();
        CuratorFramework writer = client();
        writer.create().forPath(path);
        BlockingQueue<String> seen = new LinkedBlockingQueue<>();
        try (PersistentWatcher watcher = new PersistentWatcher(client, path, true)) {
            watcher.getListenable().addListener(event -> {
                if (event.getType() != EventType.None) {
                    seen.add(event.getType() + " " + event.getPath());
                }
            });
            CountDownLatch set = new CountDownLatch(1);
            watcher.getResetListenable().addListener(set::countDown);
            watcher.start();
            check(set.await(WITHIN_S, TimeUnit.SECONDS), "not set");
            for (int round = 0; round < 3; round++) {
                writer.create().forPath(path + "/c");
                writer.setData().forPath(path + "/c", bytes("x"));
                writer.delete().forPath(path + "/c");
                same("NodeCreated " + path + "/c", next(seen));
                same("NodeDataChanged " + path + "/c", next(seen));
                same("NodeDeleted " + path + "/c", next(seen));
            }
        }
    }

    // What recipes stand on

    static void transaction(String path) throws Exception {
        CuratorFramework client = client();
        Collection<CuratorTransactionResult> done = client.transaction().forOperations(
                client.transactionOp().create().forPath(path, bytes("1")),
                client.transactionOp().create().withMode(CreateMode.EPHEMERAL_SEQUENTIAL)
                        .forPath(path + "-s-"),
                client.transactionOp().setData().withVersion(0).forPath(path, bytes("2")),
                client.transactionOp().check().withVersion(1).forPath(path));
        same(4, done.size());
        try {
            client.transaction().forOperations(
                    client.transactionOp().delete().forPath(path),
                    client.transactionOp().create().forPath("/no/parent/here"));
            check(false, "a transaction without a parent went through");
        } catch (KeeperException.NoNodeException expected) {
            check(client.checkExists().forPath(path) != null, "half a transaction");
        }
    }

    static void protectedCreate(String path) throws Exception {
        CuratorFramework client = client();
        client.create().forPath(path);
        List<String> made = Collections.synchronizedList(new ArrayList<>());
        Callable<Void> create = () -> {
            for (int number = 0; number < 50; number++) {
                made.add(client.create().withProtection()
                        .withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath(path + "/n-"));
            }
            return null;
        };
        Callable<Void> disturb = () -> {
            for (int number = 0; number < 5; number++) {
                Thread.sleep(30);
                client.getZookeeperClient().getZooKeeper().getTestable().closeSocket();
            }
            return null;
        };
        together(Arrays.asList(create, disturb));
        Set<String> there = new TreeSet<>();
        for (String child : client.getChildren().forPath(path)) {
            there.add(path + "/" + child);
        }
        same(new TreeSet<>(made), there);
        same(50, made.size());
    }

    static void connectionStates(String path) throws Exception {
        CuratorFramework client = client();
        BlockingQueue<String> states = new LinkedBlockingQueue<>();
        client.getConnectionStateListenable().addListener((any, state) -> states.add("" + state));
        client.create().withMode(CreateMode.EPHEMERAL).forPath(path);
        long session = client.getZookeeperClient().getZooKeeper().getSessionId();
        client.getZookeeperClient().getZooKeeper().getTestable().closeSocket();
        String suspended = next(states);
        same("SUSPENDED", suspended.equals("CONNECTED") ? next(states) : suspended);
        same("RECONNECTED", next(states));
        same(session, client.checkExists().forPath(path).getEphemeralOwner());
        expire(client);
        String state = next(states);
        while (!state.equals("RECONNECTED")) {
            state = next(states);
        }
        check(session != client.getZookeeperClient().getZooKeeper().getSessionId(), "same session");
    }

    static void configuration(String path) throws Exception {
        byte[] config = client().getConfig().forEnsemble();
        check(config == null || config.length == 0, "a standalone server with a configuration");
    }
}

package clipper;

import java.io.EOFException;
import java.io.IOException;
import java.net.StandardSocketOptions;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantLock;

/** Serves each connection on a thread of its own, which calls the model when it is its turn. */
final class Server {
    private static final int MAX_CONNECTIONS = 256;
    private static final long PATIENCE_MS = 5_000; // for a HELLO, and at the end for an answer to be taken
    private static final int READ_BYTES = 1 << 16;

    private final Model model;
    private final InputType type;
    private final ByteBuffer welcome;
    private final byte[] token;
    // Fair: no caller waits for more than one batch of each other one.
    private final ReentrantLock modelLock = new ReentrantLock(true);
    private volatile long busySinceNs; // of the batch in hand, 0 if there is none
    private volatile boolean stopping;
    // Each connection, and by when it has to have said HELLO.
    private final Map<SocketChannel, Long> connections = new HashMap<>();

    Server(Model model, Container.Options options, String token) {
        this.model = model;
        this.type = InputType.parse(model.inputType());
        this.welcome = Protocol.welcome(options.model(), options.version(), model);
        this.token = token.getBytes(StandardCharsets.UTF_8);
    }

    /** Serves from now on, on threads of its own. */
    void start(ServerSocketChannel listener) {
        new Thread(() -> acceptAll(listener), "clipper-accept").start();
        Thread watch = new Thread(this::dropSilent, "clipper-watch");
        watch.setDaemon(true);
        watch.start();
    }

    /** Finishes the batch in hand, and leaves callers a while to take their last answers. */
    void stop() {
        stopping = true;
        modelLock.lock(); // those that wait before it see that it stops
        modelLock.unlock();
        long untilMs = nowMs() + PATIENCE_MS;
        synchronized (connections) {
            List.copyOf(connections.keySet()).forEach(Server::shutDownInput);
            try {
                for (long leftMs; !connections.isEmpty() && (leftMs = untilMs - nowMs()) > 0; ) {
                    connections.wait(leftMs);
                }
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt(); // then at once
            }
        }
    }

    private void acceptAll(ServerSocketChannel listener) {
        while (true) {
            try {
                accept(listener.accept());
            } catch (IOException | OutOfMemoryError error) { // too many open files, or no thread to be had
                Container.log("a connection cannot be accepted: " + error.getMessage());
                LockSupport.parkNanos(10_000_000);
            }
        }
    }

    private void accept(SocketChannel channel) throws IOException {
        synchronized (connections) {
            if (connections.size() >= MAX_CONNECTIONS || stopping) {
                channel.close();
                return;
            }
            connections.put(channel, nowMs() + PATIENCE_MS);
        }
        Thread thread = new Thread(() -> serve(channel), "clipper-connection");
        thread.setDaemon(true);
        try {
            thread.start();
        } catch (OutOfMemoryError error) {
            forget(channel);
            channel.close();
            throw error;
        }
    }

    private void forget(SocketChannel channel) {
        synchronized (connections) {
            connections.remove(channel);
            connections.notifyAll();
        }
    }

    private void dropSilent() {
        while (true) {
            synchronized (connections) {
                try {
                    connections.wait(1_000);
                } catch (InterruptedException error) {
                    return;
                }
                connections.forEach((channel, byMs) -> {
                    if (byMs < nowMs()) {
                        shutDownInput(channel);
                    }
                });
            }
        }
    }

    private void serve(SocketChannel channel) {
        try (channel) {
            if (!(channel.getLocalAddress() instanceof UnixDomainSocketAddress)) {
                channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
            }
            converse(channel);
        } catch (EOFException | ClosedChannelException gone) {
            // As callers do.
        } catch (IOException | Protocol.Violation | OutOfMemoryError error) {
            Container.log("connection dropped: " + error.getMessage());
        } finally {
            forget(channel);
        }
    }

    private void converse(SocketChannel channel) throws IOException, Protocol.Violation {
        Reader reader = new Reader(channel);
        try {
            greet(channel, reader);
        } catch (Protocol.Violation violation) {
            write(channel, Protocol.error(0, violation.getMessage()));
            throw violation;
        }
        boolean watches = false;
        for (boolean first = true; ; first = false) {
            Protocol.Header header = Protocol.readHeader(reader.read(Protocol.HEADER_BYTES), Protocol.MAX_BODY_BYTES);
            ByteBuffer body = reader.read(header.bodyBytes());
            watches |= first && header.kind() == Protocol.PING;
            if (header.kind() == Protocol.PING && !body.hasRemaining()) {
                write(channel, Protocol.pong(header.id(), busyUs()));
            } else if (header.kind() == Protocol.PREDICT && watches) {
                write(channel, Protocol.error(header.id(), "this connection began with a PING, so it only watches"));
            } else if (header.kind() == Protocol.PREDICT) {
                write(channel, predict(header.id(), Protocol.readPredict(body)));
            } else {
                throw new Protocol.Violation("caller sent neither PREDICT nor PING after its HELLO");
            }
        }
    }

    private void greet(SocketChannel channel, Reader reader) throws IOException, Protocol.Violation {
        Protocol.Header header = Protocol.readHeader(reader.read(Protocol.HEADER_BYTES), Protocol.MAX_HELLO_BYTES);
        if (header.kind() != Protocol.HELLO) {
            throw new Protocol.Violation("caller began with another frame than a HELLO: expected HELLO");
        }
        byte[] sent = Protocol.readHello(reader.read(header.bodyBytes()));
        if (token.length > 0 && !MessageDigest.isEqual(token, sent)) {
            throw new Protocol.Violation("token is not the one that this container was started with");
        }
        synchronized (connections) {
            connections.put(channel, Long.MAX_VALUE);
        }
        write(channel, welcome.duplicate());
    }

    /** Returns the answer to a batch when it is its turn; throws EOFException if the container stops before. */
    private ByteBuffer predict(long id, Protocol.Batch batch) throws EOFException {
        modelLock.lock();
        try {
            if (stopping) {
                throw new EOFException();
            }
            long startedNs = busySinceNs = System.nanoTime() | 1;
            Outputs outputs = model.evaluate(Protocol.shaped(batch, type));
            return Protocol.results(id, outputs, (System.nanoTime() - startedNs) / 1_000);
        } catch (Protocol.BatchFailed | OutOfMemoryError error) {
            Container.log("a batch failed: " + error.getMessage());
            return Protocol.error(id, error.getMessage());
        } finally {
            busySinceNs = 0;
            modelLock.unlock();
        }
    }

    private long busyUs() {
        long sinceNs = busySinceNs;
        return sinceNs == 0 ? 0 : Math.max(1, (System.nanoTime() - sinceNs) / 1_000);
    }

    private static long nowMs() {
        return System.nanoTime() / 1_000_000;
    }

    private static void shutDownInput(SocketChannel channel) {
        try {
            channel.shutdownInput();
        } catch (IOException gone) {
            // Then there is none to shut down.
        }
    }

    private static void write(SocketChannel channel, ByteBuffer frame) throws IOException {
        while (frame.hasRemaining()) {
            channel.write(frame);
        }
    }

    /** Reads exactly so many bytes. A size that is only claimed takes no memory: an array grows as they come. */
    private static final class Reader {
        private final SocketChannel channel;
        private final ByteBuffer buffer = ByteBuffer.allocateDirect(READ_BYTES).flip();

        Reader(SocketChannel channel) {
            this.channel = channel;
        }

        /** Throws EOFException if the caller closes before. */
        ByteBuffer read(int size) throws IOException {
            byte[] bytes = new byte[Math.min(size, READ_BYTES)];
            for (int start = 0; start < size; ) {
                if (start == bytes.length) {
                    bytes = Arrays.copyOf(bytes, (int) Math.min(size, 2L * bytes.length));
                }
                if (!buffer.hasRemaining()) {
                    fill();
                }
                int part = Math.min(bytes.length - start, buffer.remaining());
                buffer.get(bytes, start, part);
                start += part;
            }
            return Protocol.littleEndian(bytes);
        }

        private void fill() throws IOException {
            int got = channel.read(buffer.clear());
            buffer.flip();
            if (got < 0) {
                throw new EOFException();
            }
        }
    }
}

package clipper;

import static clipper.Protocol.*;

import java.io.*;
import java.net.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.file.*;
import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.*;
import java.util.function.Supplier;
import java.util.stream.Collectors;

/** Serves a model to Clipper, each connection on a thread of its own; see proto/container-protocol.md. */
public final class Container {
    private static final List<String> OPTIONS = List.of("--listen", "--model", "--version", "--data", "--input-type");
    private static final Map<Integer, String> EXIT_CODES =
            Map.of(2, "wrong usage", 3, "the model cannot be loaded", 4, "cannot listen");
    private static final String TOKEN = System.getenv().getOrDefault("CLIPPER_TOKEN", "");
    private static final int MAX_CONNECTIONS = 256; // over these the accepting thread serves one, and accepts no other
    private static final int HELLO_WITHIN_S = 5;
    static volatile List<Model.Span> trace = List.of(); // of the batch in hand

    private final ExecutorService connections = new ThreadPoolExecutor(0, MAX_CONNECTIONS, 1, TimeUnit.SECONDS,
            new SynchronousQueue<>(), new ThreadPoolExecutor.CallerRunsPolicy());
    private final ExecutorService modelThread = Executors.newSingleThreadExecutor();
    private final ScheduledThreadPoolExecutor timer = new ScheduledThreadPoolExecutor(1);
    private final Semaphore answers = new Semaphore(MAX_CONNECTIONS, true); // one each, from its turn until it is sent
    private final Model model;
    private final InputType type;
    private final String name;
    private final String version;
    private volatile String outputType; // null until it is known
    private volatile long busySinceNs; // of the batch in hand, 0 if there is none

    private Container(Map<String, String> options, Model model) {
        String declared = options.getOrDefault("--input-type", model.inputType());
        this.model = new Model(declared, model.maxBatch(), model.predictor(), model.outputType());
        this.type = InputType.parse(declared);
        this.name = options.get("--model");
        this.version = options.get("--version");
        this.outputType = model.outputType();
        check(InputType.parse(model.inputType()).accepts(type), "input type " + declared + " does not suit");
        timer.setRemoveOnCancelPolicy(true);
    }

    /** Loads a model and serves it until SIGTERM. Does not return. */
    public static void serve(String[] args, Model.Loader loader) {
        int exitCode = 2;
        try {
            Map<String, String> options = options(args);
            exitCode = 3;
            Container container = new Container(options, loader.load(options));
            exitCode = 4;
            String address = options.get("--listen");
            ServerSocketChannel listener = listen(address);
            Runtime.getRuntime().addShutdownHook(new Thread(() -> container.stop(address)));
            System.err.println("clipper: listening on " + (address.startsWith("unix:") ? address
                    : "tcp:" + listener.getLocalAddress().toString().substring(1)));
            while (true) {
                SocketChannel channel = listener.accept();
                container.connections.execute(() -> container.serve(channel));
            }
        } catch (Throwable error) { // the user's own code may throw anything
            error.printStackTrace();
            System.err.println("clipper: " + EXIT_CODES.get(exitCode) + ": " + error);
            System.exit(exitCode);
        }
    }

    private static Map<String, String> options(String[] args) {
        Map<String, String> options = new HashMap<>();
        for (int at = 0; at < args.length; at += 2) {
            check(OPTIONS.contains(args[at]) && at + 1 < args.length, args[at] + " is unknown or has no value");
            options.put(args[at], args[at + 1]);
        }
        String listen = options.getOrDefault("--listen", "");
        check(listen.matches("unix:.+|tcp:.+:\\d{1,5}") && options.keySet().containsAll(OPTIONS.subList(1, 3)),
                "expected --listen unix:PATH|tcp:HOST:PORT --model NAME --version V");
        check(listen.startsWith("unix:") || !TOKEN.isEmpty(), "expected a token for tcp in CLIPPER_TOKEN");
        return options;
    }

    private static ServerSocketChannel listen(String address) throws IOException {
        int colon = address.lastIndexOf(':');
        if (address.startsWith("tcp:")) {
            return ServerSocketChannel.open().bind(
                    new InetSocketAddress(address.substring(4, colon), Integer.parseInt(address.substring(colon + 1))));
        }
        Path path = Path.of(address.substring(5));
        SocketAddress socket = UnixDomainSocketAddress.of(path);
        if (Files.exists(path) && ((int) Files.getAttribute(path, "unix:mode") & 0170000) == 0140000) {
            try {
                SocketChannel.open(socket).close();
            } catch (ConnectException refused) { // nobody listens on it any more
                Files.delete(path);
            }
        }
        ServerSocketChannel listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX).bind(socket);
        Files.setAttribute(path, "unix:mode", 0600);
        return listener;
    }

    /** Waits until what is in hand has been answered. Since the semaphore is fair, no other batch begins meanwhile. */
    private void stop(String address) {
        answers.acquireUninterruptibly(MAX_CONNECTIONS);
        new File(address.replaceFirst("unix:", "")).delete(); // on tcp there is none
        Runtime.getRuntime().halt(0); // else SIGTERM ends Java with 143
    }

    private void serve(SocketChannel channel) {
        try (channel) {
            InputStream in = new BufferedInputStream(Channels.newInputStream(channel), 1 << 16);
            OutputStream out = Channels.newOutputStream(channel);
            converse(greet(channel, in, out), in, out);
        } catch (IOException | BufferUnderflowException gone) { // as callers do
        } catch (Exception | OutOfMemoryError error) {
            System.err.println("clipper: connection dropped: " + error);
        }
    }

    /** Returns the version of the protocol that is spoken. */
    private int greet(SocketChannel channel, InputStream in, OutputStream out) throws IOException {
        if (channel.supportedOptions().contains(StandardSocketOptions.TCP_NODELAY)) {
            channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
        }
        Future<?> silence = timer.schedule(channel::shutdownInput, HELLO_WITHIN_S, TimeUnit.SECONDS);
        int protocol;
        try {
            Frame hello = read(in, MAX_HELLO_BYTES);
            byte[] token = token(hello);
            protocol = version(hello);
            check(MessageDigest.isEqual(token, TOKEN.getBytes()), "token is not the one that this was started with");
            check(protocol >= RECORDS_VERSION || type.fields().isEmpty(), "records need version 4 of the protocol");
        } catch (IllegalArgumentException violation) {
            out.write(frame(ERROR, 0, message(violation)));
            throw violation;
        } finally {
            silence.cancel(false);
        }
        out.write(welcome(protocol, name, version, model, outputType));
        return protocol;
    }

    private void converse(int protocol, InputStream in, OutputStream out) throws Exception {
        Frame frame = read(in, MAX_BODY_BYTES);
        for (boolean watches = frame.kind() == PING; ; frame = read(in, MAX_BODY_BYTES)) {
            if (frame.kind() == PING) {
                long sinceNs = busySinceNs;
                long busyUs = sinceNs == 0 ? 0 : Math.max(1, (System.nanoTime() - sinceNs) / 1_000);
                out.write(frame(PONG, frame.id(), littleEndian(new byte[8]).putLong(busyUs).array()));
            } else if (watches) {
                out.write(frame(ERROR, frame.id(), "this connection began with a PING, so it only watches".getBytes()));
            } else {
                List<Model.Span> trace = trace(frame, protocol);
                Supplier<List<Model.Row>> rows = frame.kind() == PREDICT_COLUMNS && protocol >= RECORDS_VERSION
                        ? columns(frame) : tensors(frame);
                predict(protocol, frame.id(), rows, trace, out);
            }
        }
    }

    private Supplier<List<Model.Row>> columns(Frame frame) {
        List<Columns.Column> columns = Columns.read(frame);
        return () -> Columns.rows(columns, type);
    }

    private Supplier<List<Model.Row>> tensors(Frame frame) {
        List<ByteBuffer> rows = rows(frame, type);
        return () -> rows.stream().map(type::row).toList();
    }

    private void predict(int protocol, long id, Supplier<List<Model.Row>> rows, List<Model.Span> trace,
            OutputStream out) throws Exception {
        byte[] answer = modelThread.submit(() -> answer(protocol, id, rows, trace)).get();
        try {
            out.write(answer);
        } finally {
            answers.release();
        }
    }

    private byte[] answer(int protocol, long id, Supplier<List<Model.Row>> given, List<Model.Span> trace) {
        answers.acquireUninterruptibly(); // there is none to be had once it stops
        Container.trace = trace;
        long startedNs = busySinceNs = System.nanoTime() | 1;
        try {
            List<Model.Row> rows = given.get();
            List<?> outputs = model.predictor().predict(rows);
            check(outputs.size() == rows.size(), "the model gave " + outputs.size() + " outputs for " + rows.size());
            Typed typed = protocol >= 2 || outputType == null ? Typed.of(outputs) : null;
            boolean takesRecords = protocol >= RECORDS_VERSION;
            List<Columns.Column> columns = typed == null && (takesRecords || outputType == null)
                    ? Columns.of(outputs, protocol >= MIXED_VERSION) : null;
            if (outputType == null && (typed != null || columns != null)) {
                outputType = typed != null ? typed.type() : Columns.type(columns);
            }
            if (columns != null && takesRecords) {
                long us = (System.nanoTime() - startedNs) / 1_000;
                return Columns.frame(id, outputs.size(), columns, us, failures(outputs));
            }
            if (typed != null && protocol >= 2) {
                return typed.frame(id, (System.nanoTime() - startedNs) / 1_000);
            }
            return results(id, outputs, () -> (System.nanoTime() - startedNs) / 1_000);
        } catch (Throwable error) { // a model may throw anything
            error.printStackTrace();
            return frame(ERROR, id, message(error));
        } finally {
            busySinceNs = 0;
            Container.trace = List.of();
        }
    }
}

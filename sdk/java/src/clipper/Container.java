package clipper;

import java.io.IOException;
import java.net.ConnectException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Serves a model to Clipper; see proto/container-protocol.md, "How a container is started". */
public final class Container {
    private static final int WRONG_USAGE = 2;
    private static final int NOT_LOADED = 3;
    private static final int NOT_LISTENING = 4;
    private static final int S_IFMT = 0170000; // of a file's mode, what kind it is
    private static final int S_IFSOCK = 0140000;
    private static final List<String> OPTIONS = List.of("--listen", "--model", "--version", "--data", "--input-type");

    /** What a container is started with; {@code data} and {@code inputType} are null if the deployment has none. */
    public record Options(String listen, String model, String version, String data, String inputType) {}

    /** Loads a model. What it throws ends the process with exit code 3. */
    @FunctionalInterface
    public interface Loader {
        Model load(Options options) throws Exception;
    }

    private Container() {}

    /** Serves until SIGTERM, and then ends the process. Returns once it listens. */
    public static void serve(String[] args, Loader loader) {
        Options options = options(args);
        String token = System.getenv().getOrDefault("CLIPPER_TOKEN", "");
        if (options.listen.startsWith("tcp:") && token.isEmpty()) {
            throw exit(WRONG_USAGE, "a container on tcp needs a token: set CLIPPER_TOKEN");
        }
        preferAsVictim();
        Server server = new Server(load(options, loader), options, token);
        Path socket = options.listen.startsWith("unix:") ? Path.of(options.listen.substring(5)) : null;
        try {
            ServerSocketChannel listener = socket != null ? listenUnix(socket) : listenTcp(options.listen);
            // SIGTERM runs this, and the process would end with 143 were it not for halt.
            Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                server.stop();
                delete(socket);
                Runtime.getRuntime().halt(0);
            }));
            log("listening on " + described(listener.getLocalAddress()));
            server.start(listener);
        } catch (IOException | RuntimeException error) {
            throw exit(NOT_LISTENING, "cannot listen on " + options.listen + ": " + error.getMessage());
        }
    }

    static void log(String message) {
        System.err.println("clipper: " + message);
    }

    private static Options options(String[] args) {
        Map<String, String> given = new HashMap<>();
        for (int at = 0; at < args.length; at += 2) {
            if (!OPTIONS.contains(args[at]) || at + 1 == args.length) {
                throw exit(WRONG_USAGE, args[at] + " is unknown or has no value: expected of " + OPTIONS);
            }
            given.put(args[at], args[at + 1]);
        }
        String listen = given.getOrDefault("--listen", "");
        if (!listen.matches("unix:.+|tcp:.+:\\d{1,5}") || !given.containsKey("--model")
                || !given.containsKey("--version")) {
            throw exit(WRONG_USAGE, "expected --listen unix:PATH|tcp:HOST:PORT --model NAME --version V");
        }
        return new Options(listen, given.get("--model"), given.get("--version"), given.get("--data"),
                given.get("--input-type"));
    }

    private static Model load(Options options, Loader loader) {
        try {
            Model model = loader.load(options);
            String declared = options.inputType == null ? model.inputType() : options.inputType;
            if (!InputType.parse(model.inputType()).accepts(InputType.parse(declared))) {
                throw exit(NOT_LOADED, "input type " + declared + " does not suit the model, it takes "
                        + model.inputType());
            }
            return new Model(declared, model.predictor(), model.maxBatch(), model.runtime());
        } catch (Throwable error) { // the user's own code may throw anything
            error.printStackTrace();
            throw exit(NOT_LOADED, "the model cannot be loaded: " + error);
        }
    }

    private static ServerSocketChannel listenUnix(Path path) throws IOException {
        UnixDomainSocketAddress address = UnixDomainSocketAddress.of(path);
        deleteStale(path, address);
        ServerSocketChannel listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
        listener.bind(address);
        // Java cannot give it this mode from the first moment on, but Clipper keeps sockets where only the owner can go.
        Files.setPosixFilePermissions(path, PosixFilePermissions.fromString("rw-------"));
        return listener;
    }

    /** Removes the socket of a process that has gone, and leaves all else for bind to refuse. */
    private static void deleteStale(Path path, SocketAddress address) throws IOException {
        if (!Files.exists(path) || ((int) Files.getAttribute(path, "unix:mode") & S_IFMT) != S_IFSOCK) {
            return;
        }
        try (SocketChannel probe = SocketChannel.open(StandardProtocolFamily.UNIX)) {
            probe.connect(address);
        } catch (ConnectException refused) {
            Files.delete(path);
        }
    }

    private static ServerSocketChannel listenTcp(String address) throws IOException {
        int colon = address.lastIndexOf(':');
        String host = address.substring("tcp:".length(), colon).replaceAll("[\\[\\]]", "");
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.setOption(StandardSocketOptions.SO_REUSEADDR, true);
        return listener.bind(new InetSocketAddress(host, Integer.parseInt(address.substring(colon + 1))));
    }

    private static String described(SocketAddress address) {
        if (address instanceof InetSocketAddress tcp) {
            String host = tcp.getAddress().getHostAddress();
            return "tcp:" + (host.contains(":") ? "[" + host + "]" : host) + ":" + tcp.getPort();
        }
        return "unix:" + address;
    }

    private static void delete(Path socket) {
        try {
            if (socket != null) {
                Files.deleteIfExists(socket);
            }
        } catch (IOException error) {
            log("the socket's file stays: " + error);
        }
    }

    /** Short of memory, the kernel should take a model before the server that would start it again. */
    private static void preferAsVictim() {
        try {
            Files.writeString(Path.of("/proc/self/oom_score_adj"), "500");
        } catch (IOException absent) { // in some sandboxes; the model runs as well without
        }
    }

    /** Ends the process; it returns nothing, but {@code throw exit(...)} tells the compiler that. */
    private static Error exit(int code, String cause) {
        log(cause);
        System.exit(code);
        return new AssertionError();
    }
}

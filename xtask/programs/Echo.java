import com.sun.net.httpserver.HttpServer;
import java.io.*;
import java.net.*;
import java.net.http.*;
import java.nio.ByteBuffer;
import java.nio.channels.*;
import java.nio.file.*;
import java.util.Arrays;
import java.util.concurrent.*;

/** Servers that say what they hear, and clients of them. */
public class Echo {
    public static void main(String[] words) throws Exception {
        int http = Integer.parseInt(words[1]);
        int plain = Integer.parseInt(words[2]);
        if (words[0].equals("serve")) {
            serve(http, plain);
        } else {
            call(http, plain, Path.of(words[3]), Path.of(words[4]));
        }
    }

    static void serve(int http, int plain) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", http), 0);
        server.createContext("/", exchange -> {
            byte[] body = exchange.getRequestBody().readAllBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.setExecutor(Executors.newCachedThreadPool());
        server.start();
        ServerSocket listener = new ServerSocket(plain, 50, InetAddress.getByName("127.0.0.1"));
        while (true) {
            Socket connection = listener.accept();
            new Thread(() -> echo(connection)).start();
        }
    }

    static void echo(Socket connection) {
        try (connection) {
            connection.getInputStream().transferTo(connection.getOutputStream());
        } catch (IOException failure) {
            failure.printStackTrace();
        }
    }

    static void call(int http, int plain, Path from, Path to) throws Exception {
        byte[] sent = Files.readAllBytes(from);
        check(sent, bySockets(plain, sent), "sockets");
        check(sent, byChannels(plain, sent), "channels");
        URI uri = URI.create("http://127.0.0.1:" + http + "/");
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        HttpRequest large =
            HttpRequest.newBuilder(uri).POST(HttpRequest.BodyPublishers.ofByteArray(sent)).build();
        Files.write(to, client.send(large, HttpResponse.BodyHandlers.ofByteArray()).body());
        for (int at = 0; at < 200; at++) {
            String text = "message " + at;
            HttpRequest small =
                HttpRequest.newBuilder(uri).POST(HttpRequest.BodyPublishers.ofString(text)).build();
            String heard = client.send(small, HttpResponse.BodyHandlers.ofString()).body();
            check(text.getBytes(), heard.getBytes(), text);
        }
        System.exit(0);
    }

    static byte[] bySockets(int port, byte[] sent) throws Exception {
        try (Socket connection = new Socket("127.0.0.1", port)) {
            connection.setSoTimeout(60_000);
            Thread writer = new Thread(() -> {
                try {
                    connection.getOutputStream().write(sent);
                    connection.shutdownOutput();
                } catch (IOException failure) {
                    failure.printStackTrace();
                }
            });
            writer.start();
            byte[] got = connection.getInputStream().readAllBytes();
            writer.join();
            return got;
        }
    }

    static byte[] byChannels(int port, byte[] sent) throws Exception {
        ByteBuffer out = ByteBuffer.wrap(sent);
        ByteBuffer in = ByteBuffer.allocate(sent.length);
        try (Selector selector = Selector.open();
             SocketChannel channel = SocketChannel.open(new InetSocketAddress("127.0.0.1", port))) {
            channel.configureBlocking(false);
            channel.register(selector, SelectionKey.OP_READ | SelectionKey.OP_WRITE);
            while (in.hasRemaining()) {
                selector.select();
                for (SelectionKey key : selector.selectedKeys()) {
                    if (key.isWritable() && out.hasRemaining()) {
                        channel.write(out);
                        if (!out.hasRemaining()) {
                            key.interestOps(SelectionKey.OP_READ);
                        }
                    }
                    if (key.isReadable() && channel.read(in) < 0) {
                        return Arrays.copyOf(in.array(), in.position());
                    }
                }
                selector.selectedKeys().clear();
            }
        }
        return in.array();
    }

    static void check(byte[] sent, byte[] got, String what) {
        if (!Arrays.equals(sent, got)) {
            throw new IllegalStateException(what + ": " + got.length + " other bytes");
        }
    }
}

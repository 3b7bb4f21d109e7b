package dev.nudge.bench;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.TimeWindows;

/**
 * The peer in Java: events a user in a hopping window (60 s, moving by 20 s), as the documentation of Kafka Streams has
 * it: a RocksDB window store with a changelog, Kafka Streams' own defaults.
 *
 * <p>A virtual machine compiles as it runs, so the first WARM_UP events are not measured. The clock stops when the
 * streams are closed: then state, changelog and offsets are flushed.
 */
public final class WindowedCount {
    private static final Duration WINDOW = Duration.ofSeconds(60);
    private static final Duration STEP = Duration.ofSeconds(20);
    private static final Duration CLOSE_MAX = Duration.ofSeconds(60);
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final OperatingSystemMXBean PROCESS =
            (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();

    /** The fields that the count needs. */
    @JsonIgnoreProperties(ignoreUnknown = true)
    public record TrackEvent(String event, String userId, long timestamp) {}

    private final AtomicLong seen = new AtomicLong();
    private final CountDownLatch done = new CountDownLatch(1);
    private final long warmUp;
    private final long count;
    private volatile Throwable failure;
    private volatile long startedNs;
    private volatile long startedCpuNs;

    private WindowedCount(long warmUp, long count) {
        this.warmUp = warmUp;
        this.count = count;
    }

    /** Arguments: BROKER TOPIC WARM_UP COUNT STATE_FOLDER REPORT_FILE. */
    public static void main(String[] arguments) throws Exception {
        var peer = new WindowedCount(Long.parseLong(arguments[2]), Long.parseLong(arguments[3]));
        peer.run(arguments[0], arguments[1], arguments[4], Path.of(arguments[5]));
    }

    private void run(String broker, String topic, String folder, Path report) throws Exception {
        var streams = new KafkaStreams(topology(topic), settings(broker, folder));
        streams.setUncaughtExceptionHandler(error -> {
            failure = error;
            done.countDown();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        done.await();
        if (failure != null) {
            throw new IllegalStateException("the streams ended", failure);
        }
        if (!streams.close(CLOSE_MAX)) {
            throw new IllegalStateException("the streams did not close in " + CLOSE_MAX);
        }
        write(report, (System.nanoTime() - startedNs) / 1e9, (PROCESS.getProcessCpuTime() - startedCpuNs) / 1e9);
    }

    private Topology topology(String topic) {
        var builder = new StreamsBuilder();
        builder.stream(topic, Consumed.with(Serdes.String(), json()))
                .peek((user, event) -> countOne())
                .groupByKey(Grouped.with(Serdes.String(), json()))
                .windowedBy(TimeWindows.ofSizeWithNoGrace(WINDOW).advanceBy(STEP))
                .count();
        return builder.build();
    }

    /** Counted before the store is written; closing the streams finishes the event. */
    private void countOne() {
        long number = seen.incrementAndGet();
        if (number == warmUp + 1) {
            startedCpuNs = PROCESS.getProcessCpuTime();
            startedNs = System.nanoTime();
        }
        if (number == warmUp + count) {
            done.countDown();
        }
    }

    private static Properties settings(String broker, String folder) {
        var settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "peer-" + System.nanoTime());
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, broker);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, folder);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        return settings;
    }

    private static Serde<TrackEvent> json() {
        return Serdes.serdeFrom((topic, event) -> bytes(event), (topic, bytes) -> event(bytes));
    }

    private static TrackEvent event(byte[] bytes) {
        try {
            return JSON.readValue(bytes, TrackEvent.class);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static byte[] bytes(TrackEvent event) {
        try {
            return JSON.writeValueAsBytes(event);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /** What benchmarks.common.write_report writes: whole or not at all. */
    private static void write(Path report, double seconds, double cpuSeconds) throws IOException {
        var detail = java.util.Map.of("java", Runtime.version().toString());
        var part = report.resolveSibling(report.getFileName() + ".part");
        var whole = java.util.Map.of("seconds", seconds, "cpu_s", cpuSeconds, "detail", detail);
        Files.write(part, JSON.writeValueAsBytes(whole));
        Files.move(part, report, StandardCopyOption.ATOMIC_MOVE);
    }
}

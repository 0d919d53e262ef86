package clipper;

import java.lang.reflect.Array;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Base64;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;

/** A batch's outputs: one {@code add}, {@code addJson} or {@code fail} an input, in the inputs' order. */
public final class Outputs {
    private static final int MAX_MESSAGE_BYTES = 4096;

    private final StringBuilder text = new StringBuilder(); // a line an output
    private final SortedMap<Integer, byte[]> failures = new TreeMap<>();
    private int count;

    /**
     * Adds null, a number, a truth value, a text, a byte[] (as base64), or an array, Iterable or Map of these. One that
     * JSON cannot carry, such as NaN, is a failure of this row alone.
     */
    public void add(Object value) {
        int start = text.length();
        nextLine();
        try {
            append(value);
            count++;
        } catch (RuntimeException | Error error) { // a list that holds itself, a Map of the user's that throws
            text.setLength(start);
            fail(error instanceof IllegalArgumentException ? error.getMessage() : "output cannot be JSON: " + error);
        }
    }

    /** Adds a JSON text of the caller's own making. */
    public void addJson(String json) {
        nextLine();
        text.append(json.replace('\n', ' ')); // white space in JSON, but the end of an output here
        count++;
    }

    public void fail(String message) {
        byte[] bytes = String.valueOf(message).getBytes(StandardCharsets.UTF_8);
        int size = Math.min(bytes.length, MAX_MESSAGE_BYTES);
        while (size < bytes.length && size > 0 && (bytes[size] & 0xC0) == 0x80) {
            size--; // not inside a character
        }
        failures.put(count, Arrays.copyOf(bytes, size));
        addJson("");
    }

    int count() {
        return count;
    }

    SortedMap<Integer, byte[]> failures() {
        return failures;
    }

    byte[] text() {
        return text.toString().getBytes(StandardCharsets.UTF_8);
    }

    private void nextLine() {
        if (count > 0) {
            text.append('\n');
        }
    }

    private void append(Object value) {
        if (value instanceof Double || value instanceof Float) {
            if (!Double.isFinite(((Number) value).doubleValue())) {
                throw new IllegalArgumentException("output is NaN or infinity, which JSON cannot carry");
            }
            text.append(value); // Double.toString: reads back as the same number
        } else if (value == null || value instanceof Number || value instanceof Boolean) {
            text.append(value);
        } else if (value instanceof byte[] bytes) {
            appendText(Base64.getEncoder().encodeToString(bytes));
        } else if (value instanceof Map<?, ?> map) {
            String before = "{";
            for (Map.Entry<?, ?> entry : map.entrySet()) {
                text.append(before);
                appendText(String.valueOf(entry.getKey()));
                text.append(':');
                append(entry.getValue());
                before = ",";
            }
            text.append(map.isEmpty() ? "{}" : "}");
        } else if (value instanceof Iterable<?> elements) {
            text.append('[');
            elements.forEach(this::appendElement);
            text.append(']');
        } else if (value.getClass().isArray()) {
            text.append('[');
            for (int index = 0; index < Array.getLength(value); index++) {
                appendElement(Array.get(value, index));
            }
            text.append(']');
        } else if (value instanceof CharSequence || value instanceof Character) {
            appendText(value.toString());
        } else {
            throw new IllegalArgumentException("output of " + value.getClass() + " cannot be JSON");
        }
    }

    private void appendElement(Object value) {
        if (text.charAt(text.length() - 1) != '[') {
            text.append(',');
        }
        append(value);
    }

    private void appendText(String value) {
        text.append('"');
        for (int index = 0; index < value.length(); index++) {
            char c = value.charAt(index);
            if (c < ' ') {
                text.append(String.format("\\u%04x", (int) c));
            } else {
                text.append(c == '"' || c == '\\' ? "\\" : "").append(c);
            }
        }
        text.append('"');
    }
}

// The edge with the unmodified OpenFeature SDK for Java and its OFREP provider.
//
// Usage: java Client CASES URL TOKEN

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.google.common.collect.ImmutableList;
import com.google.common.collect.ImmutableMap;
import dev.openfeature.contrib.providers.ofrep.OfrepProvider;
import dev.openfeature.contrib.providers.ofrep.OfrepProviderOptions;
import dev.openfeature.sdk.ErrorCode;
import dev.openfeature.sdk.EvaluationContext;
import dev.openfeature.sdk.FlagEvaluationDetails;
import dev.openfeature.sdk.ImmutableContext;
import dev.openfeature.sdk.OpenFeatureAPI;
import dev.openfeature.sdk.Structure;
import dev.openfeature.sdk.Value;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Callable;

public class Client {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final BufferedReader ANSWERS = new BufferedReader(new InputStreamReader(System.in));

    public static void main(String[] args) {
        int code = 0;
        try {
            run(args);
        } catch (Throwable error) {
            error.printStackTrace();
            code = 1;
        }
        // The provider's threads would keep the program from ending.
        System.exit(code);
    }

    private static void run(String[] args) throws Exception {
        String url = args[1];
        var client = client("shop", url, args[2]);
        int checked = 0;
        for (JsonNode shared : JSON.readTree(new File(args[0]))) {
            checked += check(client, shared) ? 1 : 0;
        }
        equal("enough cases", checked > 40, true);
        metadata(client);
        tokens(url);
        changes(client);
        limits(url);
        OpenFeatureAPI.getInstance().shutdown();
        System.out.println("java: all checks passed");
    }

    private static dev.openfeature.sdk.Client client(String domain, String url, String token) {
        var headers = ImmutableMap.of("Authorization", ImmutableList.of("Bearer " + token));
        var options = OfrepProviderOptions.builder().baseUrl(url).headers(headers).build();
        OpenFeatureAPI.getInstance().setProviderAndWait(domain, OfrepProvider.constructProvider(options));
        return OpenFeatureAPI.getInstance().getClient(domain);
    }

    private static boolean check(dev.openfeature.sdk.Client client, JsonNode shared) throws Exception {
        Map<String, JsonNode> expected = new HashMap<>();
        shared.fields().forEachRemaining(field -> expected.put(field.getKey(), field.getValue()));
        shared.path("except").path("java").fields().forEachRemaining(field -> expected.put(field.getKey(), field.getValue()));
        if (expected.containsKey("left_out")) {
            return false;
        }
        String name = expected.get("name").asText();
        var found = read(client, expected);
        String error = text(expected.get("error"));
        equal(name, JSON.valueToTree(plain(found.getValue())), expected.get("value"));
        equal(name, found.getErrorCode() == null ? null : found.getErrorCode().name(), error);
        equal(name, found.getReason(), error == null ? text(expected.get("reason")) : "ERROR");
        equal(name, found.getFlagKey(), text(expected.get("flag")));
        if (error == null && expected.containsKey("variant")) {
            equal(name, found.getVariant(), text(expected.get("variant")));
        }
        if (expected.containsKey("metadata")) {
            JsonNode all = JSON.valueToTree(found.getFlagMetadata().asUnmodifiableMap());
            JsonNode metadata = expected.get("metadata");
            equal(name, all.isEmpty(), metadata.isEmpty());
            metadata.fields().forEachRemaining(field -> equal(name, all.get(field.getKey()), field.getValue()));
        }
        return true;
    }

    private static FlagEvaluationDetails<?> read(dev.openfeature.sdk.Client client, Map<String, JsonNode> expected) {
        String flag = expected.get("flag").asText();
        JsonNode fallback = expected.get("default");
        EvaluationContext context = context(expected.get("context"));
        return switch (expected.get("as").asText()) {
            case "boolean" -> client.getBooleanDetails(flag, fallback.asBoolean(), context);
            case "string" -> client.getStringDetails(flag, fallback.asText(), context);
            case "integer" -> client.getIntegerDetails(flag, fallback.asInt(), context);
            case "double" -> client.getDoubleDetails(flag, fallback.asDouble(), context);
            default -> client.getObjectDetails(flag, value(fallback), context);
        };
    }

    /** What the metadata of an experiment is made of arrives with its types. */
    private static void metadata(dev.openfeature.sdk.Client client) {
        var context = context(JSON.createObjectNode().put("targetingKey", "java-1").put("age", 20));
        var found = client.getStringDetails("sign-up", "x", context).getFlagMetadata();
        equal("a text", found.getString("experiment"), "sign-up");
        equal("an integer", found.getInteger("phase"), 1);
        equal("a boolean", found.getBoolean("exposure_logged"), true);
        equal("a bucket", found.getInteger("bucket_variant") < 1_000_000, true);
    }

    private static void tokens(String url) {
        var stranger = client("stranger", url, "wrong").getBooleanDetails("banner", false);
        equal("401", List.of(stranger.getValue(), stranger.getErrorCode(), stranger.getReason()),
                List.of(false, ErrorCode.GENERAL, "ERROR"));
        equal("401", stranger.getErrorMessage(), "authentication/authorization error for flag: banner");
    }

    /** A flag that is flipped and one that is killed while this runs. */
    private static void changes(dev.openfeature.sdk.Client client) throws Exception {
        equal("before it is flipped", client.getDoubleValue("factor", 0.0), 1.0);
        ask("flip");
        within("the new value", () -> client.getDoubleValue("factor", 0.0) == 0.5);
        equal("before it is killed", client.getBooleanValue("on-sale", false), true);
        ask("kill");
        within("the variant of the kill switch", () -> !client.getBooleanValue("on-sale", true));
        var killed = client.getBooleanDetails("on-sale", true);
        equal("killed", List.of(killed.getValue(), killed.getReason(), killed.getVariant()), List.of(false, "STATIC", "off"));
        // A list with a null in it.
        var layout = client.getObjectDetails("layout", new Value());
        equal("a null within", JSON.valueToTree(plain(layout.getValue())).toString(),
                "{\"columns\":[1,2.5,null],\"title\":\"w\"}");
    }

    /** Whoever asks too often is told when to come again, and this provider keeps to it. */
    private static void limits(String url) throws Exception {
        var limited = client("limited", url, "limited-0123456789abcdef");
        within("429", () -> {
            var found = limited.getBooleanDetails("banner", false);
            return found.getErrorCode() == ErrorCode.GENERAL && found.getErrorMessage().startsWith("Rate limit exceeded for");
        });
        var early = limited.getBooleanDetails("banner", false);
        equal("no second request", early.getErrorMessage().contains("Please wait before making another request"), true);
        within("an answer again", () -> limited.getBooleanValue("banner", false));
    }

    private static EvaluationContext context(JsonNode sent) {
        Map<String, Value> attributes = new HashMap<>();
        if (sent == null) {
            return new ImmutableContext();
        }
        sent.fields().forEachRemaining(field -> attributes.put(field.getKey(), value(field.getValue())));
        Value key = attributes.remove("targetingKey");
        return key == null ? new ImmutableContext(attributes) : new ImmutableContext(key.asString(), attributes);
    }

    private static Value value(JsonNode node) {
        return node.isNull() ? new Value() : Value.objectToValue(JSON.convertValue(node, Object.class));
    }

    /** A value of the SDK as plain Java. */
    private static Object plain(Object found) {
        if (!(found instanceof Value value)) {
            return found;
        }
        if (value.isStructure()) {
            Structure structure = value.asStructure();
            Map<String, Object> fields = new HashMap<>();
            structure.asMap().forEach((name, field) -> fields.put(name, plain(field)));
            return fields;
        }
        if (value.isList()) {
            List<Object> items = new ArrayList<>();
            value.asList().forEach(item -> items.add(plain(item)));
            return items;
        }
        return value.asObject();
    }

    private static String text(JsonNode node) {
        return node == null || node.isNull() ? null : node.asText();
    }

    private static void ask(String what) throws Exception {
        System.out.println(what);
        equal(what, ANSWERS.readLine(), "done");
    }

    private static void within(String what, Callable<Boolean> isSo) throws Exception {
        long end = System.nanoTime() + 10_000_000_000L;
        while (!isSo.call()) {
            equal("within 10 s: " + what, System.nanoTime() < end, true);
            Thread.sleep(20);
        }
    }

    private static void equal(String what, Object found, Object expected) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError(what + ": " + found + " is not " + expected);
        }
    }
}

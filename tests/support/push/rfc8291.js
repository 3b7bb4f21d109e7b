// A browser's side of Web Push encryption (RFC 8291, RFC 8188) with the browser's own cryptography: WebCrypto.
let subscription;

const bytes = (text) => new TextEncoder().encode(text);
const joined = (...parts) => new Uint8Array(parts.flatMap((part) => [...new Uint8Array(part)]));
const base64url = (data) =>
  btoa(String.fromCharCode(...new Uint8Array(data))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const unbase64url = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));

async function subscribe() {
  const key = await crypto.subtle.generateKey({ name: "ECDH", namedCurve: "P-256" }, false, ["deriveBits"]);
  const point = await crypto.subtle.exportKey("raw", key.publicKey);
  subscription = { key: key.privateKey, point, auth: crypto.getRandomValues(new Uint8Array(16)) };
  return JSON.stringify({ p256dh: base64url(point), auth: base64url(subscription.auth) });
}

async function hkdf(secret, salt, info, length) {
  const key = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
  return crypto.subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt, info }, key, length * 8);
}

async function decrypt(body) {
  const message = unbase64url(body);
  const salt = message.slice(0, 16);
  const length = message[20];
  const sender = message.slice(21, 21 + length);
  const theirs = await crypto.subtle.importKey("raw", sender, { name: "ECDH", namedCurve: "P-256" }, false, []);
  const shared = await crypto.subtle.deriveBits({ name: "ECDH", public: theirs }, subscription.key, 256);
  const about = joined(bytes("WebPush: info\0"), subscription.point, sender);
  const ikm = await hkdf(shared, subscription.auth, about, 32);
  const cek = await hkdf(ikm, salt, bytes("Content-Encoding: aes128gcm\0"), 16);
  const nonce = await hkdf(ikm, salt, bytes("Content-Encoding: nonce\0"), 12);
  const key = await crypto.subtle.importKey("raw", cek, "AES-GCM", false, ["decrypt"]);
  const plain = await crypto.subtle.decrypt({ name: "AES-GCM", iv: nonce }, key, message.slice(21 + length));
  const padded = new Uint8Array(plain);
  return new TextDecoder().decode(padded.slice(0, padded.lastIndexOf(2)));
}

// The service worker of a page that receives nudge's Web Push messages. Serve it from the root of your site.
// tests/integration/test_web_push_page.py runs it in a browser.

// Yours: takes an event, checks who is calling, adds `userId` and produces it to the topic `events`.
const EVENTS = "/events";

function tell(event, decision) {
  const body = {
    type: "track",
    event,
    messageId: `${decision}:${event}`, // the same however often it is told: counted once
    timestamp: new Date().toISOString(),
    properties: { decisionId: decision },
  };
  // keepalive: the browser may stop this worker as soon as a window opens.
  return fetch(EVENTS, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    keepalive: true,
  }).catch(() => undefined); // an answer that is lost is no reason to show nothing
}

self.addEventListener("push", (event) => {
  const message = event.data.json(); // id, title, body, and perhaps deepLink and data
  event.waitUntil(
    self.registration.showNotification(message.title, {
      body: message.body,
      tag: message.id, // a message that arrives twice replaces itself
      data: message,
    }),
  );
});

self.addEventListener("notificationclick", (event) => {
  const message = event.notification.data;
  event.notification.close();
  event.waitUntil(Promise.all([tell("Notification Opened", message.id), go(message.deepLink)]));
});

self.addEventListener("notificationclose", (event) => {
  event.waitUntil(tell("Notification Dismissed", event.notification.data.id));
});

async function go(link) {
  // Only within this site: a link comes from a message.
  const target = new URL(link || "/", self.location.origin);
  const address = target.origin === self.location.origin ? target.href : self.location.origin;
  const open = await self.clients.matchAll({ type: "window" });
  const page = open.find((client) => client.url === address);
  await (page ? page.focus() : self.clients.openWindow(address)).catch(() => undefined);
}

// The browser has given the subscription a new address: the old one is of no use any more.
self.addEventListener("pushsubscriptionchange", (event) => {
  event.waitUntil(
    self.registration.pushManager
      .subscribe(event.oldSubscription.options)
      .then((subscription) =>
        fetch(EVENTS, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({
            type: "track",
            event: "Application Opened",
            messageId: self.crypto.randomUUID(),
            timestamp: new Date().toISOString(),
            context: { device: { type: "web", subscription: subscription.toJSON() } },
          }),
        }),
      ),
  );
});

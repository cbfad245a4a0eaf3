// Delays a word by a number of clocks, also none: then there is nothing to clock. What leaves the
// line is not used.
/* verilator lint_off UNUSED */
module wino_delay #(
    parameter BITS = 1,
    parameter CLOCKS = 1
) (
    input  wire            clock,
    input  wire            reset,
    input  wire [BITS-1:0] in,
    output wire [BITS-1:0] out
);
    generate
        if (CLOCKS == 0) begin : none
            assign out = in;
        end else begin : some
            reg  [CLOCKS*BITS-1:0]     line;
            wire [(CLOCKS+1)*BITS-1:0] moved = {line, in};
            always @(posedge clock)
                line <= reset ? {(CLOCKS*BITS){1'b0}} : moved[CLOCKS*BITS-1:0];
            assign out = line[(CLOCKS-1)*BITS +: BITS];
        end
    endgenerate
endmodule
/* verilator lint_on UNUSED */

// Head of a column: transforms a channel a clock and holds a tile of CHANNELS channels.
module wino_column #(
    parameter OMEGA = 4,
    parameter CHANNELS = 2,
    parameter INPUT_BITS = 8,
    parameter FULL_BITS = 10,
    parameter DROPPED = 0,
    parameter COLUMN = 0
) (
    input  wire                                                clock,
    input  wire                                                reset,
    input  wire                                                bypass,
    input  wire                                                feed,   // the window is next
    input  wire                                                swap,
    input  wire [OMEGA*OMEGA*INPUT_BITS-1:0]                   window,
    output reg  [CHANNELS*OMEGA*OMEGA*(FULL_BITS-DROPPED)-1:0] values
);
    localparam PLANE = OMEGA*OMEGA*(FULL_BITS-DROPPED);
    wire                              feed_now, swap_now;
    wire [OMEGA*OMEGA*INPUT_BITS-1:0] window_now;
    wire [PLANE-1:0]                  plane;
    reg  [CHANNELS*PLANE-1:0]         shifted;  // the first channel is lowest once all are in

    wino_delay #(.BITS(2), .CLOCKS(COLUMN + 1)) control_delay (
        .clock(clock), .reset(reset), .in({feed, swap}), .out({feed_now, swap_now})
    );
    wino_delay #(.BITS(OMEGA*OMEGA*INPUT_BITS), .CLOCKS(COLUMN)) window_delay (
        .clock(clock), .reset(reset), .in(window), .out(window_now)
    );
    wino_input_transform #(
        .OMEGA(OMEGA), .INPUT_BITS(INPUT_BITS), .FULL_BITS(FULL_BITS), .DROPPED(DROPPED)
    ) transform (.bypass(bypass), .tile(window_now), .values(plane));

    always @(posedge clock) begin
        if (swap_now) values <= shifted;
        if (feed_now) shifted <= {plane, shifted[PLANE +: (CHANNELS-1)*PLANE]};
    end
endmodule

// Head of a row: weight buffer and transform of CHANNELS kernels a clock.
module wino_row #(
    parameter OMEGA = 4,
    parameter CHANNELS = 2,
    parameter KERNEL_BITS = 8,
    parameter FULL_BITS = 12,
    parameter DROPPED = 0,
    parameter WORDS = 1024,
    parameter ROW = 0
) (
    input  wire                                                clock,
    input  wire                                                reset,
    input  wire                                                bypass,
    input  wire                                                load,
    input  wire [15:0]                                         load_address,
    input  wire [CHANNELS*9*KERNEL_BITS-1:0]                   load_word,
    input  wire [17:0]                                         issue,  // valid, first, result word
    input  wire [15:0]                                         issue_kernel,
    output wire [17:0]                                         issue_now,
    output reg  [CHANNELS*OMEGA*OMEGA*(FULL_BITS-DROPPED)-1:0] factors
);
    localparam PLANE = OMEGA*OMEGA*(FULL_BITS-DROPPED);
    localparam ADDRESS_BITS = $clog2(WORDS);
    reg  [CHANNELS*9*KERNEL_BITS-1:0] memory [0:WORDS-1];
    reg  [CHANNELS*9*KERNEL_BITS-1:0] kernels;
    wire [CHANNELS*PLANE-1:0]         transformed;
    // Addresses have 16 bits, whatever the depth.
    /* verilator lint_off UNUSED */
    wire [15:0] address;
    wire [15:0] load_at = load_address;
    /* verilator lint_on UNUSED */

    wino_delay #(.BITS(16), .CLOCKS(ROW)) address_delay (
        .clock(clock), .reset(reset), .in(issue_kernel), .out(address)
    );
    wino_delay #(.BITS(18), .CLOCKS(ROW + 2)) control_delay (
        .clock(clock), .reset(reset), .in(issue), .out(issue_now)
    );
    genvar c;
    generate
        for (c = 0; c < CHANNELS; c = c + 1) begin : channel
            wino_kernel_transform #(
                .OMEGA(OMEGA), .KERNEL_BITS(KERNEL_BITS), .FULL_BITS(FULL_BITS), .DROPPED(DROPPED)
            ) transform (
                .bypass(bypass),
                .kernel(kernels[c*9*KERNEL_BITS +: 9*KERNEL_BITS]),
                .factors(transformed[c*PLANE +: PLANE])
            );
        end
    endgenerate

    always @(posedge clock) begin
        if (load) memory[load_at[ADDRESS_BITS-1:0]] <= load_word;
        kernels <= memory[address[ADDRESS_BITS-1:0]];
        factors <= transformed;
    end
endmodule

// A cell: passes tiles down and weights right, and adds results to its output buffer. A word is
// read a clock before it is written; the control comes back to it after two clocks or more.
module wino_cell #(
    parameter OMEGA = 4,
    parameter CHANNELS = 2,
    parameter EXACT = 1,
    parameter VALUE_BITS = 10,
    parameter FACTOR_BITS = 12,
    parameter SUM_BITS = 23,
    parameter SUM_DROPPED = 0,
    parameter RESULT_BITS = 26,
    parameter HELD_BITS = 26,
    parameter RESULT_DROPPED = 0,
    parameter BYPASS_RESULT_DROPPED = 0,
    parameter BYPASS_RESULT_RAISED = 0,
    parameter WORDS = 256
) (
    input  wire                                        clock,
    input  wire                                        reset,
    input  wire                                        bypass,
    input  wire [CHANNELS*OMEGA*OMEGA*VALUE_BITS-1:0]  values_in,
    output reg  [CHANNELS*OMEGA*OMEGA*VALUE_BITS-1:0]  values_out,
    input  wire [CHANNELS*OMEGA*OMEGA*FACTOR_BITS-1:0] factors_in,
    output reg  [CHANNELS*OMEGA*OMEGA*FACTOR_BITS-1:0] factors_out,
    input  wire [17:0]                                 issue_in,   // valid, first, result word
    output reg  [17:0]                                 issue_out,
    input  wire                                        store,
    input  wire [15:0]                                 store_word,
    input  wire [15:0]                                 store_slot,
    output reg  [HELD_BITS-1:0]                        stored      // a clock later
);
    localparam ADDRESS_BITS = $clog2(WORDS);
    wire [OMEGA*OMEGA*RESULT_BITS-1:0] results;
    wire [OMEGA*OMEGA*HELD_BITS-1:0]   next;
    reg  [OMEGA*OMEGA*HELD_BITS-1:0]   held;
    reg  [OMEGA*OMEGA*HELD_BITS-1:0]   memory [0:WORDS-1];
    reg  [15:0]                        slot;
    // Addresses have 16 bits, whatever the depth.
    /* verilator lint_off UNUSED */
    reg  [17:0] multiplied, summed, transformed;
    wire [15:0] read = store ? store_word : summed[15:0];
    /* verilator lint_on UNUSED */
    always @(*) begin : choose
        integer i;
        stored = {HELD_BITS{1'b0}};
        for (i = 0; i < OMEGA*OMEGA; i = i + 1)
            if (slot == i[15:0]) stored = stored | held[i*HELD_BITS +: HELD_BITS];
    end

    wino_core #(
        .OMEGA(OMEGA), .CHANNELS(CHANNELS), .VALUE_BITS(VALUE_BITS), .FACTOR_BITS(FACTOR_BITS),
        .SUM_BITS(SUM_BITS), .DROPPED(SUM_DROPPED), .RESULT_BITS(RESULT_BITS)
    ) core (
        .clock(clock), .bypass(bypass), .values(values_out), .factors(factors_out),
        .results(results)
    );

    wino_accumulate #(
        .OMEGA(OMEGA), .EXACT(EXACT), .RESULT_BITS(RESULT_BITS), .HELD_BITS(HELD_BITS),
        .DROPPED(RESULT_DROPPED), .BYPASS_DROPPED(BYPASS_RESULT_DROPPED),
        .BYPASS_RAISED(BYPASS_RESULT_RAISED)
    ) accumulate (
        .bypass(bypass), .first(transformed[16]), .held(held), .results(results), .next(next)
    );

    always @(posedge clock) begin
        values_out  <= values_in;
        factors_out <= factors_in;
        slot        <= store_slot;
        held        <= memory[read[ADDRESS_BITS-1:0]];
        if (transformed[17]) memory[transformed[ADDRESS_BITS-1:0]] <= next;
        if (reset) {issue_out, multiplied, summed, transformed} <= 72'd0;
        else begin
            issue_out   <= issue_in;
            multiplied  <= issue_out;
            summed      <= multiplied;
            transformed <= summed;
        end
    end
endmodule
